package servers

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"flatimg/cmd/internal/cli"
)

const (
	// defaultRetries in a row take 8 s: a server that restarts comes back
	// within, and nobody waits for one that is gone.
	defaultRetries = 5
	// The wait doubles each time.
	firstWait = 250 * time.Millisecond
	longWait  = 30 * time.Second
)

// retrier tries again what failed for a reason that may pass. It is shared by
// all that goes on at a time with one server. Safe for concurrent use.
type retrier struct {
	most int64                            // tries in a row without progress
	say  func(format string, args ...any) // tells the user; may be nil
	row  atomic.Int64                     // failures since the last progress
}

func newRetrier(o Options) *retrier {
	most := int64(o.Retries)
	if most == 0 {
		most = defaultRetries
	}
	return &retrier{most: max(most, 0)}
}

// Retrier is for who reads a [Download] in parts. Used by one goroutine.
type Retrier struct{ r *retrier }

// NewRetrier returns a retrier with [Options.Retries], which tells by say that
// something is tried again.
func NewRetrier(retries int, say func(format string, args ...any)) *Retrier {
	r := newRetrier(Options{Retries: retries})
	r.say = say
	return &Retrier{r}
}

// Progress says that something has come: what fails now is a new failure.
func (r *Retrier) Progress() { r.r.progress() }

// Wait returns nil when what failed with err is to be tried again, after the
// time until then; else the error to give up with.
func (r *Retrier) Wait(ctx context.Context, what string, err error) error {
	return r.r.wait(ctx, what, err)
}

// own returns a retrier that counts for itself: for what goes on beside other
// things, or within one that is tried again as a whole.
func (r *retrier) own() *retrier { return &retrier{most: r.most, say: r.say} }

// progress says that something went well: what fails now is a new failure.
func (r *retrier) progress() { r.row.Store(0) }

// do calls try until it succeeds, fails for good, or has failed too often, and
// returns its last error. It waits between tries, longer each time.
func (r *retrier) do(ctx context.Context, what string, try func() error) error {
	for {
		err := try()
		if err == nil {
			r.progress()
			return nil
		}
		if err := r.wait(ctx, what, err); err != nil {
			return err
		}
	}
}

// meet is do for the first request to a server. One that can't be reached at all
// is not waited for: its name or port may be wrong.
func (r *retrier) meet(ctx context.Context, what string, try func() error) error {
	return r.do(ctx, what, func() error {
		err := try()
		if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "dial" {
			return lasting{err}
		}
		return err
	})
}

// wait returns nil when what failed with err is to be tried again, after the
// time until then; else the error to give up with.
func (r *retrier) wait(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	n := r.row.Add(1)
	if !mayPass(err) || n > r.most {
		return err
	}
	pause := min(firstWait<<min(n-1, 10), longWait)
	if asked, ok := errors.AsType[*retryLater](err); ok {
		pause = min(max(pause, asked.after), 2*longWait)
	}
	if r.say != nil {
		r.say("%s: %v; trying again in %v", what, err, pause)
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

// awaitLast is the longest time between two looks.
const awaitLast = 5 * time.Second

// await looks again and again, for as long as limit, whether the server has done
// what it was asked for, and was not waited for: the answer of status 504 is that
// of a gateway that has lost its patience, not of the server behind it.
func await(ctx context.Context, limit time.Duration, done func() (bool, error)) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := firstWait; ; pause = min(2*pause, awaitLast) {
		if ok, err := done(); ok || err != nil && !mayPass(err) {
			return ok, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, nil
		}
	}
}

// readAll calls read for the bytes [off, off+length), and again for what w has not
// got yet when it fails for a reason that may pass. What has come is progress.
func (r *retrier) readAll(ctx context.Context, what string, w io.Writer, off, length int64, read func(w io.Writer, off, length int64) error) error {
	counted := &countingWriter{w: w}
	return r.do(ctx, what, func() error {
		before := counted.n
		err := read(counted, off+before, length-before)
		if counted.n > before {
			r.progress()
		}
		return err
	})
}

// passing marks an error as one that may pass, which its type does not tell.
type passing struct{ error }

func (p passing) Unwrap() error { return p.error }

// lasting marks an error as one that does not pass.
type lasting struct{ error }

func (l lasting) Unwrap() error { return l.error }

// retryLater is an error after which the server wants to be left alone for a
// time.
type retryLater struct {
	error
	after time.Duration
}

func (r *retryLater) Unwrap() error { return r.error }

// mayPass says whether an error is of the kind that goes away: a broken line, a
// busy server. What the user has to mend, and what a server says of a request
// itself, does not.
func mayPass(err error) bool {
	// Of two marks the outer one has been set by who knows more.
	for e := err; e != nil && !errors.Is(err, context.Canceled); e = errors.Unwrap(e) {
		switch e.(type) {
		case passing, *retryLater:
			return true
		case lasting:
			return false
		}
	}
	switch {
	case is[lasting](err), errors.Is(err, context.Canceled):
		return false
	case is[passing](err), is[*retryLater](err):
		return true
	}
	if e, ok := errors.AsType[*cli.Error](err); ok && e.Code != cli.ExitServer {
		return false
	}
	for _, e := range []error{
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, context.DeadlineExceeded,
		syscall.ECONNRESET, syscall.ECONNREFUSED, syscall.ECONNABORTED, syscall.EPIPE, syscall.ETIMEDOUT,
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	netErr, ok := errors.AsType[net.Error](err)
	return ok && netErr.Timeout()
}

// is says whether err is of a type, or wraps one that is.
func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
