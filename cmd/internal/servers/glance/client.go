package glance

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// apiClient talks with an image service: OpenStack's Image API v2. Safe for
// concurrent use.
type apiClient struct {
	service *url.URL // without version
	http    *http.Client
	token   token
}

// newClient finds the service and logs in.
func newClient(ctx context.Context, o servers.Options) (*apiClient, error) {
	a, err := findAccount(o)
	if err != nil {
		return nil, err
	}
	o.CACert = cmp.Or(o.CACert, os.Getenv("OS_CACERT"))
	if a.tls != nil {
		o.CACert = "" // it has them
	}
	transport, err := web.NewTransport(o)
	if err != nil {
		return nil, err
	}
	if a.tls != nil {
		transport.TLSClientConfig = a.tls
	}
	client := &http.Client{Transport: transport, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		// The token is in a header that goes along.
		if len(via) > web.MaxRedirects || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
			return transfer.Lasting(fmt.Errorf("the service leads to %s://%s", req.URL.Scheme, req.URL.Host))
		}
		return nil
	}}
	c := &apiClient{http: client, token: token{account: a, http: client}}
	var endpoint string
	err = transfer.NewRetrier(o).Meet(ctx, "log in", func() (err error) {
		endpoint, err = c.token.login(ctx)
		return err
	})
	if err == nil {
		c.service, err = serviceURL(endpoint)
	}
	if err != nil {
		client.CloseIdleConnections()
		return nil, err
	}
	return c, nil
}

func (c *apiClient) close() { c.http.CloseIdleConnections() }

// request is one to the service.
type request struct {
	method string
	path   string // after /v2/
	query  url.Values
	header map[string]string
	// body returns that of a request of size bytes; it is called again when
	// the request is repeated with a new token. Nil: there is none.
	body func() io.ReadCloser
	size int64
	// want lists the statuses of a good answer.
	want []int
}

// do sends a request, with a new token when the old one has ended, and returns a
// good answer or an error.
func (c *apiClient) do(ctx context.Context, r request) (*http.Response, error) {
	u := *c.service
	u.Path += "/v2/" + r.path
	u.RawQuery = r.query.Encode()
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
		if err != nil {
			return nil, transfer.Lasting(err)
		}
		req.Header.Set("Accept", "application/json, */*;q=0.5")
		for key, value := range r.header {
			req.Header.Set(key, value)
		}
		token := c.token.get()
		if token != "" {
			req.Header.Set("X-Auth-Token", token)
		}
		if r.body != nil {
			req.Body, req.ContentLength = r.body(), r.size
			if r.size == 0 {
				req.Body = http.NoBody
			}
		}
		resp, err := c.http.Do(req)
		switch {
		case err != nil:
			return nil, web.WithoutURL(err)
		case slices.Contains(r.want, resp.StatusCode):
			return resp, nil
		case resp.StatusCode == http.StatusUnauthorized && try == 0:
			again, err := c.token.renew(ctx, token)
			if err != nil {
				web.Drain(resp)
				return nil, err
			}
			if again {
				web.Drain(resp)
				continue
			}
		}
		return nil, refused(resp)
	}
}

// htmlTag is what Glance puts around its messages when it does not send JSON.
var htmlTag = regexp.MustCompile(`(?s)<(head|h1)>.*?</(head|h1)>|<[^>]*>`)

// refused returns the error that an answer is, and closes it.
func refused(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	resp.Body.Close()
	var answer struct{ Message string }
	if json.Unmarshal(text, &answer) == nil && answer.Message != "" {
		text = []byte(answer.Message)
	}
	plain := strings.Join(strings.Fields(html.UnescapeString(htmlTag.ReplaceAllString(string(text), " "))), " ")
	resp.Header.Set("Content-Type", "text/plain")
	resp.Body = io.NopCloser(strings.NewReader(plain))
	err := web.StatusError(resp)
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return &cli.Error{Err: err, Hint: "check OS_TOKEN: it may have ended", Code: cli.ExitServer}
	case http.StatusForbidden:
		return &cli.Error{Err: err, Hint: "the account lacks the right to that, or its quota is used up", Code: cli.ExitServer}
	case http.StatusRequestEntityTooLarge:
		return &cli.Error{Err: err, Hint: "the cloud's store is full, or its limit for images is smaller", Code: cli.ExitNoSpace}
	}
	return err
}

// ask sends a request without body, or with message as JSON, and parses the
// answer into answer, unless it is nil.
func (c *apiClient) ask(ctx context.Context, r request, message, answer any) error {
	if message != nil {
		text, err := json.Marshal(message)
		if err != nil {
			return err
		}
		r.body, r.size = func() io.ReadCloser { return io.NopCloser(bytes.NewReader(text)) }, int64(len(text))
		if r.header == nil {
			r.header = map[string]string{"Content-Type": "application/json"}
		}
	}
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	defer web.Drain(resp)
	if answer == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, web.MaxAnswer))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return transfer.Lasting(errors.Join(errors.New("the answer is not JSON as an image service sends it"), err))
	}
	return nil
}
