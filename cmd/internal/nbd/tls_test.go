package nbd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flatimg/integration/rig"
)

func TestTLS(t *testing.T) {
	rig.Need(t, "nbdkit")
	dir := t.TempDir()
	ca := newAuthority(t)
	ca.issue(t, dir, "server", "localhost")
	ca.issue(t, dir, "client", "client")
	ca.write(t, dir)
	other := t.TempDir()
	newAuthority(t).write(t, other)
	alone := t.TempDir() // an authority, and no certificate of a client
	ca.write(t, alone)

	address := nbdkit(t, "--tls=require", "--tls-verify-peer", "--tls-certificates="+dir, "memory", "4M")
	secure := strings.Replace(address, "nbd", "nbds", 1)
	s := &shadow{Client: dialURL(t, secure+"&tls-certificates="+url.QueryEscape(dir), Options{Connections: 2, Status: true})}
	s.want = make([]byte, s.Size())
	s.write(t, 1, 7, 512)
	s.check(t)

	for _, c := range []struct {
		name, address string
		is            func(error) bool
	}{
		{"no TLS", address, isErr(ErrTLSRequired)},
		{"unknown authority", secure + "&tls-certificates=" + other, isType[*TLSError]},
		{"system's authorities", secure, isType[*TLSError]},
		{"wrong name", secure + "&tls-hostname=example.com&tls-certificates=" + dir, isType[*TLSError]},
		{"no folder", secure + "&tls-certificates=/nonexistent", isType[*TLSError]},
		{"server without TLS", strings.Replace(nbdkit(t, "memory", "1M"), "nbd", "nbds", 1), isErr(ErrTLSRefused)},
		// With TLS 1.3, the server says so after the client is done.
		{"no certificate", secure + "&tls-certificates=" + alone, func(err error) bool {
			return isType[*TLSError](err) || IsConnectionError(err)
		}},
	} {
		a, err := Parse(c.address)
		if err != nil {
			t.Fatal(err)
		}
		client, err := Dial(t.Context(), a, Options{})
		if err == nil {
			client.Close()
		}
		if err == nil || !c.is(err) {
			t.Errorf("%s: %T: %v", c.name, err, err)
		}
	}
}

// authority signs certificates for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	a.cert = sign(t, &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil, a.key, a.key)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign returns cert, signed by key; by itself if parent is nil.
func sign(t *testing.T, cert, parent *x509.Certificate, own, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	cert.SerialNumber = big.NewInt(mathrand.Int64())
	cert.Subject = pkix.Name{CommonName: fmt.Sprint("test ", cert.SerialNumber)}
	cert.NotBefore, cert.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	cert.BasicConstraintsValid = true
	if parent == nil {
		parent = cert
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, &own.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// write writes the authority's certificate to dir.
func (a *authority) write(t *testing.T, dir string) {
	t.Helper()
	writePEM(t, filepath.Join(dir, caFile), "CERTIFICATE", a.cert.Raw)
}

// issue writes a certificate for a name to dir, with its key.
func (a *authority) issue(t *testing.T, dir, kind, name string) {
	t.Helper()
	key := newKey(t)
	cert := sign(t, &x509.Certificate{
		DNSNames:    []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key, a.key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, kind+"-cert.pem"), "CERTIFICATE", cert.Raw)
	writePEM(t, filepath.Join(dir, kind+"-key.pem"), "PRIVATE KEY", der)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
