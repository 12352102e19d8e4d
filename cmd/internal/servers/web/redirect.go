package web

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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

// checkRedirect says whether a redirect is followed. Credentials are not shown
// to another server.
func checkRedirect(req *http.Request, via []*http.Request, follow bool) error {
	first := via[0]
	same := req.URL.Scheme == first.URL.Scheme && req.URL.Host == first.URL.Host
	switch {
	case len(via) >= 10:
		return transfer.Lasting(errors.New("more than 10 redirects"))
	case !follow && (!same || req.Method != first.Method || !keepsMethod(req.Response.StatusCode)):
		// A PUT would become a GET.
		return http.ErrUseLastResponse
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return transfer.Lasting(fmt.Errorf("redirected from https to %s", redirectTarget(req.URL)))
	case !same:
		req.Header.Del("Authorization")
	}
	return nil
}

// keepsMethod says whether a redirect means the same request at another place
// (RFC 9110, sections 15.4.8 and 15.4.9).
func keepsMethod(status int) bool {
	return status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect
}

// redirectTarget is a URL without what may be secret in it.
func redirectTarget(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
