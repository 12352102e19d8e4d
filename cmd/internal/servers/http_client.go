package servers

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"flatimg/cmd/internal/cli"
)

const (
	// shortLimit is how long a server may think about a small request.
	shortLimit = time.Minute
	// slowDisk is the slowest that a server may copy a file, in bytes a second,
	// before it is taken to hang.
	slowDisk = 10 << 20
	// closeLimit bounds what Close asks of a server.
	closeLimit = 5 * time.Second
)

var (
	errNoAnswer = errors.New("no answer in time")
	errStalled  = errors.New("the line stands still")
)

// sizeLimit is how long a server may work on a file of size bytes.
func sizeLimit(size int64) time.Duration {
	return answerTimeout + time.Duration(size/slowDisk)*time.Second
}

// webClient makes requests of one server. Safe for concurrent use.
type webClient struct {
	http  *http.Client
	auth  string // the header Authorization; empty: none
	retry *retrier
	met   atomic.Bool // the server has answered once
}

// newWebClient returns a client for a. Redirects are followed when follow is
// set; else only those that change nothing but the path.
func newWebClient(a webAddress, o Options, follow bool) (*webClient, error) {
	auth, err := authorization(a, o)
	if err != nil {
		return nil, err
	}
	t, err := newTransport(o)
	if err != nil {
		return nil, err
	}
	// Each request has a limit of its own.
	t.ResponseHeaderTimeout = 0
	c := &webClient{auth: auth, retry: newRetrier(o)}
	c.http = &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		return checkRedirect(req, via, follow)
	}}
	return c, nil
}

// authorization returns the header of that name for the user of the URL or of
// the options (RFC 7617), or else for the token in FLATIMG_TOKEN (RFC 6750).
func authorization(a webAddress, o Options) (string, error) {
	user := cmp.Or(a.user, o.User)
	if user == "" {
		if token := os.Getenv("FLATIMG_TOKEN"); token != "" {
			return "Bearer " + token, nil
		}
		return "", nil
	}
	secret, err := password(o)
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
		return lasting{errors.New("more than 10 redirects")}
	case !follow && (!same || req.Method != first.Method || !keepsMethod(req.Response.StatusCode)):
		// A PUT would become a GET.
		return http.ErrUseLastResponse
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return lasting{fmt.Errorf("redirected from https to %s", redirectTarget(req.URL))}
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

// webRequest is a request.
type webRequest struct {
	method string
	to     webAddress
	header map[string]string
	// body makes the body, of length bytes, anew for each time that it is
	// sent; nil: none.
	body   func() io.ReadCloser
	length int64
	// limit is how long the server may think; 0 means shortLimit.
	limit time.Duration
	// also are statuses that are no errors, beside 200 to 206.
	also []int
}

// send makes the request once. The answer's body ends with ctx, and when it
// stands still.
func (c *webClient) send(ctx context.Context, r webRequest) (*http.Response, error) {
	outer := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	var answered atomic.Bool
	timer := time.AfterFunc(1<<62, func() {
		if !answered.Load() {
			cancel(errNoAnswer)
		}
	})
	defer timer.Stop()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { timer.Reset(cmp.Or(r.limit, shortLimit)) },
	})
	req, closeBody, err := c.request(ctx, r)
	if err != nil {
		cancel(nil)
		return nil, lasting{err}
	}
	resp, err := c.http.Do(req)
	answered.Store(true)
	// The transport may still read a body whose request has failed.
	closeBody()
	if err != nil {
		cause := context.Cause(ctx)
		cancel(nil)
		switch {
		case outer.Err() != nil:
			return nil, context.Cause(outer)
		case cause != nil:
			err = cause
		}
		return nil, c.lineError(err)
	}
	c.met.Store(true)
	resp.Body = &webBody{ctx, resp.Body, cancel}
	if !r.takes(resp.StatusCode) {
		return nil, c.answerError(resp)
	}
	return resp, nil
}

// request makes the request for net/http, and what ends the use of its body.
func (c *webClient) request(ctx context.Context, r webRequest) (*http.Request, func(), error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.to.url.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	req.Header.Set("User-Agent", "flatimg")
	if c.auth != "" {
		req.Header.Set("Authorization", c.auth)
	}
	if r.body == nil {
		return req, func() {}, nil
	}
	body := r.body()
	req.Body, req.ContentLength = body, r.length
	if r.length == 0 {
		req.Body = http.NoBody
	}
	req.GetBody = func() (io.ReadCloser, error) {
		body.Close()
		body = r.body()
		return body, nil
	}
	return req, func() { body.Close() }, nil
}

// takes says whether status is no error.
func (r webRequest) takes(status int) bool {
	for _, s := range r.also {
		if s == status {
			return true
		}
	}
	return status >= 200 && status <= http.StatusPartialContent
}

// do makes a request whose answer has no body of interest, and tries again what
// may pass; what says what it is for.
func (c *webClient) do(ctx context.Context, what string, r webRequest) (resp *http.Response, err error) {
	err = c.retry.do(ctx, what, func() error {
		if resp, err = c.send(ctx, r); err != nil {
			return err
		}
		drain(resp)
		return nil
	})
	return resp, err
}

// close ends the connections.
func (c *webClient) close() { c.http.CloseIdleConnections() }

// lineError is the error for a request without an answer. A server that has
// never answered is not waited for.
func (c *webClient) lineError(err error) error {
	// The URL would be told twice.
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	hint := ""
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case is[lasting](err):
		return err
	case is[*tls.CertificateVerificationError](err):
		hint = "--cacert FILE names the certificates to trust in place of the system's"
	case is[tls.RecordHeaderError](err), errors.Is(err, http.ErrSchemeMismatch):
		hint = "does the server speak TLS on this port? without it the URL begins with http://"
	case isDNS && dns.IsNotFound:
		hint = "check the host's name"
	case c.met.Load():
		return passing{err}
	default:
		hint = "does the server run, and is this its port?"
	}
	return lasting{&cli.Error{Err: err, Hint: hint, Code: cli.ExitServer}}
}

// answerError is the error that an answer is.
func (c *webClient) answerError(resp *http.Response) error {
	hint := ""
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized && c.auth == "":
		hint = "the server wants credentials: user@ in the URL or --user, with --password-file or FLATIMG_PASSWORD; or a token in FLATIMG_TOKEN"
	case s == http.StatusForbidden:
		hint = "the server does not allow this; check the path, and what the account may do there"
	case s == http.StatusRequestEntityTooLarge:
		hint = "the server limits the size of an upload: client_max_body_size of nginx, LimitRequestBody of Apache"
	case s >= 300 && s < 400:
		if to, err := resp.Location(); err == nil {
			resp.Body.Close()
			err := fmt.Errorf("HTTP status %d: the server redirects to %s", s, redirectTarget(to))
			return lasting{&cli.Error{Err: err, Hint: "give that URL, if you trust it", Code: cli.ExitServer}}
		}
	}
	err := statusError(resp)
	if hint != "" {
		err = lasting{&cli.Error{Err: err, Hint: hint, Code: cli.ExitServer}}
	}
	return err
}

// webBody is the body of an answer.
type webBody struct {
	ctx    context.Context
	body   io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *webBody) Read(p []byte) (int, error) {
	n, err := idleReader{b.body, idleTimeout, func() { b.cancel(errStalled) }}.Read(p)
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errStalled {
		err = passing{errStalled}
	}
	return n, err
}

func (b *webBody) Close() error {
	defer b.cancel(nil)
	return b.body.Close()
}
