// Package web has what the protocols over HTTP share: a transport that gives up a
// line that stands still, requests that are tried again, bodies that are read from
// a source while they are sent, ranges and checksums.
package web

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// shortLimit is how long a server may think about a small request.
	shortLimit = time.Minute
	// slowDisk is the slowest that a server may copy a file, in bytes a second,
	// before it is taken to hang.
	slowDisk = 10 << 20
	// DefaultLanes is how many requests at a time are of use: one line is seldom
	// filled by one connection.
	DefaultLanes = 4
	// CloseLimit bounds what Close asks of a server.
	CloseLimit = 5 * time.Second
)

// errNoAnswer is why a request ended that the server has thought too long about.
var errNoAnswer = errors.New("no answer in time")

// SizeLimit is how long a server may work on a file of size bytes.
func SizeLimit(size int64) time.Duration {
	return AnswerTimeout + time.Duration(size/slowDisk)*time.Second
}

// Client makes requests of one server. Safe for concurrent use.
type Client struct {
	http  *http.Client
	Auth  string // the header Authorization; empty: none
	Retry *transfer.Retrier
	// Secret is left out of what the server says; empty: nothing is.
	Secret string
	met    atomic.Bool // the server has answered once
}

// NewClient returns a client for a. Redirects are followed when follow is set;
// else only those that change nothing but the path.
func NewClient(ctx context.Context, a Address, o servers.Options, follow bool) (*Client, error) {
	auth, err := authorization(ctx, a, o)
	if err != nil {
		return nil, err
	}
	t, err := NewTransport(o)
	if err != nil {
		return nil, err
	}
	// Each request has a limit of its own.
	t.ResponseHeaderTimeout = 0
	c := &Client{Auth: auth, Retry: transfer.NewRetrier(o)}
	c.http = &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		return checkRedirect(req, via, follow)
	}}
	return c, nil
}

// Request is one to the server of a [Client].
type Request struct {
	Method string
	To     Address
	Header map[string]string
	// Body makes the body, of length bytes, anew for each time that it is
	// sent; nil: none.
	Body   func() io.ReadCloser
	Length int64
	// Limit is how long the server may think; 0: a minute.
	Limit time.Duration
	// Foreign: it is not for the server of the credentials.
	Foreign bool
	// Also are statuses that are no errors, beside 200 to 206.
	Also []int
}

// Send makes the request once. The answer's body ends with ctx, and when it
// stands still.
func (c *Client) Send(ctx context.Context, r Request) (*http.Response, error) {
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
		WroteRequest: func(httptrace.WroteRequestInfo) { timer.Reset(cmp.Or(r.Limit, shortLimit)) },
	})
	req, closeBody, err := c.request(ctx, r)
	if err != nil {
		cancel(nil)
		return nil, transfer.Lasting(err)
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
	resp.Body = &idleBody{ctx, cancel, resp.Body}
	if !r.takes(resp.StatusCode) {
		return nil, c.AnswerError(resp)
	}
	return resp, nil
}

// request makes the request for net/http, and what ends the use of its body.
func (c *Client) request(ctx context.Context, r Request) (*http.Request, func(), error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, r.To.URL.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	for name, value := range r.Header {
		req.Header.Set(name, value)
	}
	req.Header.Set("User-Agent", "flatimg")
	if c.Auth != "" && !r.Foreign {
		req.Header.Set("Authorization", c.Auth)
	}
	if r.Body == nil {
		return req, func() {}, nil
	}
	body := r.Body()
	req.Body, req.ContentLength = body, r.Length
	if r.Length == 0 {
		req.Body = http.NoBody
	}
	req.GetBody = func() (io.ReadCloser, error) {
		body.Close()
		body = r.Body()
		return body, nil
	}
	return req, func() { body.Close() }, nil
}

// takes says whether status is no error.
func (r Request) takes(status int) bool {
	for _, s := range r.Also {
		if s == status {
			return true
		}
	}
	return status >= 200 && status <= http.StatusPartialContent
}

// Do makes a request whose answer has no body of interest, and tries again what
// may pass; what says what it is for.
func (c *Client) Do(ctx context.Context, what string, r Request) (resp *http.Response, err error) {
	err = c.Retry.Own().Do(ctx, what, func() error {
		if resp, err = c.Send(ctx, r); err != nil {
			return err
		}
		Drain(resp)
		return nil
	})
	return resp, err
}

// Close ends the connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }
