package servers

import (
	"context"
	"errors"
	"io"
	"net/http"
)

// errIdle is why a body ended that stood still.
var errIdle = errors.New("nothing came for two minutes")

// idleBody is the body of an answer. It fails, for a reason that may pass, when
// nothing comes for [idleTimeout].
type idleBody struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	body   io.ReadCloser
}

// withIdleBody calls do with a context for a request, and gives the answer an
// idleBody, whose Close ends the request.
func withIdleBody(ctx context.Context, do func(ctx context.Context) (*http.Response, error)) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := do(ctx)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp.Body = &idleBody{ctx, cancel, resp.Body}
	return resp, nil
}

func (b *idleBody) Read(p []byte) (int, error) {
	n, err := idleReader{b.body, idleTimeout, func() { b.cancel(errIdle) }}.Read(p)
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errIdle {
		err = passing{errIdle}
	}
	return n, err
}

// Close implements io.Closer.
func (b *idleBody) Close() error {
	b.cancel(nil)
	return b.body.Close()
}
