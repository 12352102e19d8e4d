package servers

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
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
	// secret is left out of what the server says; empty: nothing is.
	secret string
	met    atomic.Bool // the server has answered once
}

// newWebClient returns a client for a. Redirects are followed when follow is
// set; else only those that change nothing but the path.
func newWebClient(ctx context.Context, a webAddress, o Options, follow bool) (*webClient, error) {
	auth, err := authorization(ctx, a, o)
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
	// foreign: it is not for the server of the credentials.
	foreign bool
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
		// A redirected request is another one.
		GotConn:      func(httptrace.GotConnInfo) { timer.Stop() },
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
	if c.auth != "" && !r.foreign {
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
	err = c.retry.own().do(ctx, what, func() error {
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
