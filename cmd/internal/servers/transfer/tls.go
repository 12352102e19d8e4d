package transfer

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"flatimg/cmd/internal/servers"
)

// TLSConfig returns the configuration that trusts the certificates of
// [servers.Options.CACert]; nil for those of the system.
func TLSConfig(o servers.Options) (*tls.Config, error) {
	if o.CACert == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(o.CACert)
	if err != nil {
		return nil, Usage(fmt.Errorf("certificates: %w", err), "--cacert FILE names a file of PEM certificates")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, Usage(fmt.Errorf("%s: no PEM certificate in it", o.CACert), "--cacert FILE names a file of PEM certificates")
	}
	return &tls.Config{RootCAs: pool}, nil
}
