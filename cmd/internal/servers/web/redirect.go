package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"flatimg/cmd/internal/servers/transfer"
)

// MaxRedirects is how often one request may be led elsewhere where the client of
// a protocol does not follow as [NewClient] does.
const MaxRedirects = 5

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
