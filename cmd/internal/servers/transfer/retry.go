package transfer

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"flatimg/cmd/internal/servers"
)

const (
	// defaultRetries in a row take 8 s: a server that restarts comes back
	// within, and nobody waits for one that is gone.
	defaultRetries = 5
	// firstWait doubles each time, up to longWait.
	firstWait = 250 * time.Millisecond
	longWait  = 30 * time.Second
)

// Retrier tries again what failed for a reason that may pass. It is shared by
// all that goes on at a time with one server. Safe for concurrent use.
type Retrier struct {
	// Say tells the user that something is tried again; it may be nil.
	Say  func(format string, args ...any)
	Most int64        // tries in a row without progress
	row  atomic.Int64 // failures since the last progress
}

// NewRetrier returns one with [servers.Options.Retries].
func NewRetrier(o servers.Options) *Retrier {
	most := int64(o.Retries)
	if most == 0 {
		most = defaultRetries
	}
	return &Retrier{Most: max(most, 0)}
}

// Own returns a retrier that counts for itself: for what goes on beside other
// things, or within one that is tried again as a whole.
func (r *Retrier) Own() *Retrier { return &Retrier{Most: r.Most, Say: r.Say} }

// Progress says that something went well: what fails now is a new failure.
func (r *Retrier) Progress() { r.row.Store(0) }

// Do calls try until it succeeds, fails for good, or has failed too often, and
// returns its last error. It waits between tries, longer each time.
func (r *Retrier) Do(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			r.Progress()
			return nil
		}
		if err := r.Wait(ctx, what, err); err != nil {
			return err
		}
	}
}

// Meet is [Retrier.Do] for the first request to a server. One that can't be
// reached at all is not waited for: its name or port may be wrong.
func (r *Retrier) Meet(ctx context.Context, what string, try func() error) error {
	return r.Do(ctx, what, func() error {
		err := try()
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
			return Lasting(err)
		}
		return err
	})
}

// Wait returns nil when what failed with err is to be tried again, after the
// time until then; else the error to give up with.
func (r *Retrier) Wait(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	n := r.row.Add(1)
	if !MayPass(err) || n > r.Most {
		return err
	}
	pause := min(firstWait<<min(n-1, 10), longWait)
	if asked, ok := errors.AsType[*laterError](err); ok {
		pause = min(max(pause, asked.after), 2*longWait)
	}
	if r.Say != nil {
		r.Say("%s: %v; trying again in %v", what, err, pause)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ReadAll calls read for the bytes [off, off+length), and again for what w has not
// got yet when it fails for a reason that may pass. What has come is progress.
func (r *Retrier) ReadAll(ctx context.Context, what string, w io.Writer, off, length int64, read func(w io.Writer, off, length int64) error) error {
	counted := &CountingWriter{W: w}
	return r.Do(ctx, what, func() error {
		before := counted.N
		err := read(counted, off+before, length-before)
		if counted.N > before {
			r.Progress()
		}
		return err
	})
}
