package oci

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// registry talks with one repository of a registry: the API of the OCI
// distribution specification 1.1, which is version 2 of the Docker registry's.
// Safe for concurrent use.
type registry struct {
	ref  ref
	http *http.Client
	auth registryAuth
}

// newRegistry returns a client that asks for the actions, "pull" or "pull,push".
func newRegistry(ctx context.Context, ref ref, actions string, o servers.Options) (*registry, error) {
	who, err := registryLogin(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	transport, err := web.NewTransport(o)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) > web.MaxRedirects || via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
			return transfer.Lasting(fmt.Errorf("the registry leads to %s", req.URL.Redacted()))
		}
		return nil
	}}
	return &registry{ref, client, registryAuth{login: who, scope: "repository:" + ref.repo + ":" + actions}}, nil
}

func (c *registry) close() { c.http.CloseIdleConnections() }

// request is one to a registry.
type request struct {
	method string
	url    *url.URL
	header map[string]string
	// body returns that of a request of size bytes; it is called again when
	// the request is repeated with a login. Nil: there is none.
	body func() io.ReadCloser
	size int64
	// patience is how long the registry may think when it has got all; 0: as
	// long as all do.
	patience time.Duration
	// want lists the statuses of a good answer.
	want []int
}

// do sends a request, with a login when the registry wants one, and returns a
// good answer or an error.
func (c *registry) do(ctx context.Context, r request) (*http.Response, error) {
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, r.method, r.url.String(), nil)
		if err != nil {
			return nil, transfer.Lasting(err)
		}
		for key, value := range r.header {
			req.Header.Set(key, value)
		}
		if r.body != nil {
			req.Body, req.ContentLength = r.body(), r.size
		}
		// An upload or a blob may be at another host, which must not get the login.
		own := r.url.Host == c.ref.url("").Host && r.url.Scheme == c.ref.scheme
		if own {
			if err := c.auth.authorize(ctx, c.http, req); err != nil {
				return nil, err
			}
		}
		resp, err := c.patient(r.patience).Do(req)
		switch {
		case err != nil:
			return nil, plainHTTP(web.WithoutURL(err))
		case slices.Contains(r.want, resp.StatusCode):
			return resp, nil
		case resp.StatusCode == http.StatusUnauthorized && resp.Request.URL.Host == req.URL.Host && own && try == 0:
			again, err := c.auth.challenged(resp)
			if err != nil {
				web.Drain(resp)
				return nil, err
			}
			if again {
				web.Drain(resp)
				continue
			}
		}
		return nil, c.refused(resp)
	}
}

// patient returns a client for a request whose answer may take long.
func (c *registry) patient(patience time.Duration) *http.Client {
	if patience == 0 {
		return c.http
	}
	transport := c.http.Transport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = patience
	transport.DisableKeepAlives = true // nobody uses the connection again
	client := *c.http
	client.Transport = transport
	return &client
}

// plainHTTP adds a hint to the error for a registry without TLS.
func plainHTTP(err error) error {
	if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return &cli.Error{Err: err, Hint: "oci+http:// is for a registry without TLS", Code: cli.ExitServer}
	}
	return err
}

// refused returns the error that an answer is, and closes it. The text is that
// of the registry's first error (specification, "Error Codes").
func (c *registry) refused(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	resp.Body.Close()
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(text, &answer) == nil && len(answer.Errors) > 0 {
		resp.Header.Set("Content-Type", "text/plain")
		text = []byte(answer.Errors[0].Code + ": " + answer.Errors[0].Message)
	}
	resp.Body = io.NopCloser(strings.NewReader(string(text)))
	err := web.StatusError(resp)
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		return &cli.Error{
			Err:  err,
			Hint: fmt.Sprintf("log in with: podman login %s (or docker login), or give --user and --password-file", c.ref.host),
			Code: cli.ExitServer,
		}
	}
	return err
}

// location returns where an answer leads to. An upload that leaves TLS is
// refused; the same host without it is a proxy that does not know better.
func (c *registry) location(resp *http.Response) (*url.URL, error) {
	u, err := resp.Location()
	if err != nil {
		return nil, transfer.Lasting(fmt.Errorf("the registry does not say where the upload is: %w", err))
	}
	return c.checkLocation(u)
}

func (c *registry) checkLocation(u *url.URL) (*url.URL, error) {
	own := c.ref.url("")
	if u.Host == own.Host {
		u.Scheme = own.Scheme
	}
	if u.Scheme != "https" && u.Host != own.Host || u.User != nil {
		return nil, transfer.Lasting(fmt.Errorf("the registry wants the upload at %s://%s", u.Scheme, u.Host))
	}
	return u, nil
}
