package web

import (
	"cmp"
	"context"
	"encoding/base64"
	"os"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// authorization returns the header of that name for the user of the URL or of
// the options (RFC 7617), or else for the token in FLATIMG_TOKEN (RFC 6750).
func authorization(ctx context.Context, a Address, o servers.Options) (string, error) {
	user := cmp.Or(a.User, o.User)
	if user == "" {
		if token := os.Getenv("FLATIMG_TOKEN"); token != "" {
			return "Bearer " + token, nil
		}
		return "", nil
	}
	secret, err := transfer.PasswordOf(ctx, user, a.URL.Host, o)
	if err != nil {
		return "", err
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret)), nil
}
