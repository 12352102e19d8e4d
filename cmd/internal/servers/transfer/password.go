package transfer

import (
	"context"
	"io"
	"os"
	"strings"

	"flatimg/cmd/internal/servers"
)

// Password returns that of the options or of FLATIMG_PASSWORD; empty: none.
func Password(o servers.Options) (string, error) {
	if o.PasswordFile == "" {
		return os.Getenv("FLATIMG_PASSWORD"), nil
	}
	f, err := os.Open(o.PasswordFile)
	if err != nil {
		return "", Usage(err, "--password-file FILE names a file whose first line is the password")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// PasswordOf returns the password of a user at a host: that of [Password], else
// what the user types; empty: none.
func PasswordOf(ctx context.Context, user, host string, o servers.Options) (string, error) {
	secret, err := Password(o)
	if err != nil || secret != "" || o.PasswordFile != "" || o.Ask == nil {
		return secret, err
	}
	return o.Ask(ctx, user+" at "+host)
}
