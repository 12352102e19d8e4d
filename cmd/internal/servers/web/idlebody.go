package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"flatimg/cmd/internal/servers/transfer"
)

// errIdle is why a body ended that stood still.
var errIdle = errors.New("nothing came for two minutes")

// idleBody is the body of an answer. It fails, for a reason that may pass, when
// nothing comes for [IdleTimeout].
type idleBody struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	body   io.ReadCloser
}

// WithIdleBody calls do with a context for a request, and gives the answer a
// body that fails when nothing comes for [IdleTimeout], and whose Close ends the
// request.
func WithIdleBody(ctx context.Context, do func(ctx context.Context) (*http.Response, error)) (*http.Response, error) {
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
	n, err := IdleReader{b.body, IdleTimeout, func() { b.cancel(errIdle) }}.Read(p)
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errIdle {
		err = transfer.Passing(errIdle)
	}
	return n, err
}

func (b *idleBody) Close() error {
	b.cancel(nil)
	return b.body.Close()
}

// IdleReader tells when a body stands still: Cancel is called when a Read takes
// longer than Idle.
type IdleReader struct {
	R      io.Reader
	Idle   time.Duration
	Cancel func()
}

// Read implements [io.Reader].
func (r IdleReader) Read(p []byte) (int, error) {
	timer := time.AfterFunc(r.Idle, r.Cancel)
	defer timer.Stop()
	return r.R.Read(p)
}
