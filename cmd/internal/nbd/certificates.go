package nbd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Files in a folder with certificates, in PEM; nbdkit-tls(1), section "TLS with
// X.509 certificates". Those of the client may be missing.
const (
	caFile   = "ca-cert.pem"
	certFile = "client-cert.pem"
	keyFile  = "client-key.pem"
)

// tlsConfig returns how a connection to a is encrypted. Errors are of type
// [*TLSError].
func (a Address) tlsConfig(base *tls.Config) (*tls.Config, error) {
	config := &tls.Config{}
	if base != nil {
		config = base.Clone()
	}
	if a.Certificates != "" {
		if err := loadCertificates(config, a.Certificates); err != nil {
			return nil, &TLSError{err}
		}
	}
	// Section "TLS versions": 1.2 is the oldest that all must support.
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	switch {
	case a.ServerName != "":
		config.ServerName = a.ServerName
	case config.ServerName != "":
	case a.Network == "unix":
		config.ServerName = "localhost"
	default:
		config.ServerName = a.Host
	}
	return config, nil
}

// loadCertificates sets the authority, and the client's certificate if there is
// one, from the files in dir.
func loadCertificates(config *tls.Config, dir string) error {
	pem, err := os.ReadFile(filepath.Join(dir, caFile))
	if err != nil {
		return err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s: no certificate in it", filepath.Join(dir, caFile))
	}
	cert, key := filepath.Join(dir, certFile), filepath.Join(dir, keyFile)
	if _, err := os.Stat(cert); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("%s with %s: %w", cert, keyFile, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return nil
}

// isTLS says whether err is about TLS and not about the network below it.
func isTLS(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	// What crypto/tls makes of an alert of the peer or of its own.
	op, ok := errors.AsType[*net.OpError](err)
	return ok && (op.Op == "remote error" || op.Op == "local error")
}
