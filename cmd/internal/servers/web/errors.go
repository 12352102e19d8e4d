package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/transfer"
)

// lineError is the error for a request without an answer. A server that has
// never answered is not waited for.
func (c *Client) lineError(err error) error {
	err = WithoutURL(err) // it would be told twice
	hint := ""
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case transfer.IsLasting(err):
		return err
	case transfer.Is[*tls.CertificateVerificationError](err):
		hint = "--cacert FILE names the certificates to trust in place of the system's"
	case transfer.Is[tls.RecordHeaderError](err), errors.Is(err, http.ErrSchemeMismatch):
		hint = "does the server speak TLS on this port? without it the URL begins with http://"
	case isDNS && dns.IsNotFound:
		hint = "check the host's name"
	case c.met.Load():
		return transfer.Passing(err)
	default:
		hint = "does the server run, and is this its port?"
	}
	err = &cli.Error{Err: err, Hint: hint, Code: cli.ExitServer}
	// Somebody was there.
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) {
		return transfer.Passing(err)
	}
	return transfer.Lasting(err)
}

// WithoutURL leaves out of an error of [http.Client] what it was about: a URL in
// which there may be tokens.
func WithoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// AnswerError is the error that an answer is.
func (c *Client) AnswerError(resp *http.Response) error {
	hint := ""
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized && c.Auth == "":
		hint = "the server wants credentials: user@ in the URL or --user, with --password-file or FLATIMG_PASSWORD; or a token in FLATIMG_TOKEN"
	case s == http.StatusUnauthorized:
		hint = "check the user, and the password in --password-file or FLATIMG_PASSWORD; or the token in FLATIMG_TOKEN"
	case s == http.StatusForbidden:
		hint = "the server does not allow this; check the path, and what the account may do there"
	case s == http.StatusRequestEntityTooLarge:
		hint = "the server limits the size of an upload: client_max_body_size of nginx, LimitRequestBody of Apache"
	case s >= 300 && s < 400:
		if to, err := resp.Location(); err == nil {
			resp.Body.Close()
			err := fmt.Errorf("HTTP status %d: the server redirects to %s", s, redirectTarget(to))
			return transfer.Lasting(&cli.Error{Err: err, Hint: "give that URL, if you trust it", Code: cli.ExitServer})
		}
	}
	err := StatusError(resp)
	if e, ok := errors.AsType[*Error](err); ok && c.Secret != "" {
		e.Text = strings.ReplaceAll(e.Text, c.Secret, "…")
	}
	if hint != "" {
		err = transfer.Lasting(&cli.Error{Err: err, Hint: hint, Code: cli.ExitServer})
	}
	return err
}

// Fail is [transfer.ServerError] for an error of a [Client], whose hint stays.
func Fail(where, what string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	e, ok := errors.AsType[*cli.Error](err)
	if !ok {
		return transfer.ServerError(where, what, err)
	}
	if strings.HasPrefix(err.Error(), where+": ") {
		return err
	}
	return &cli.Error{Err: fmt.Errorf("%s: %s: %w", where, what, err), Hint: e.Hint, Code: e.Code}
}

// UnlessMissing is nil for the answers to HEAD that say that there is no such
// file, and of servers that don't take HEAD.
func UnlessMissing(err error) error {
	if HasStatus(err, http.StatusNotFound, http.StatusGone, http.StatusMethodNotAllowed, http.StatusNotImplemented) {
		return nil
	}
	return err
}
