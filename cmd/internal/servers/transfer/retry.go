// Package transfer has what uploads and downloads of several protocols share:
// trying again, cutting a source into pieces, following how far all has arrived,
// the names of what is not published yet, and errors that users can act on.
package transfer

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
)

// SlowestReads is how many bytes a second the slowest disk reads at: a server is
// silent while it reads what it has.
const SlowestReads = 50 << 20

const (
	// defaultRetries in a row take 8 s: a server that restarts comes back
	// within, and nobody waits for one that is gone.
	defaultRetries = 5
	// The wait doubles each time.
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

// Meet is do for the first request to a server. One that can't be reached at all
// is not waited for: its name or port may be wrong.
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

// awaitLast is the longest time between two looks.
const awaitLast = 5 * time.Second

// Await looks again and again, for as long as limit, whether the server has done
// what it was asked for, and was not waited for: the answer of status 504 is that
// of a gateway that has lost its patience, not of the server behind it.
func Await(ctx context.Context, limit time.Duration, done func() (bool, error)) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := firstWait; ; pause = min(2*pause, awaitLast) {
		if ok, err := done(); ok || err != nil && !MayPass(err) {
			return ok, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, nil
		}
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

// passingError marks an error as one that may pass.
type passingError struct{ error }

func (e passingError) Unwrap() error { return e.error }

// Passing marks an error as one that may pass, which its type does not tell.
func Passing(err error) error { return passingError{err} }

// IsPassing says whether an error has been marked as one that may pass.
func IsPassing(err error) bool { return Is[passingError](err) }

// lastingError marks an error as one that does not pass.
type lastingError struct{ error }

func (e lastingError) Unwrap() error { return e.error }

// Lasting marks an error as one that does not pass.
func Lasting(err error) error { return lastingError{err} }

// IsLasting says whether an error has been marked as one that does not pass.
func IsLasting(err error) bool { return Is[lastingError](err) }

// laterError is an error after which the server wants to be left alone for a
// time.
type laterError struct {
	error
	after time.Duration
}

func (e *laterError) Unwrap() error { return e.error }

// RetryLater marks an error as one that may pass, but not before a time.
func RetryLater(err error, after time.Duration) error { return &laterError{err, after} }

// MayPass says whether an error is of the kind that goes away: a broken line, a
// busy server. What the user has to mend, and what a server says of a request
// itself, does not.
func MayPass(err error) bool {
	// Of two marks the outer one has been set by who knows more.
	for e := err; e != nil && !errors.Is(err, context.Canceled); e = errors.Unwrap(e) {
		switch e.(type) {
		case passingError, *laterError:
			return true
		case lastingError:
			return false
		}
	}
	switch {
	case IsLasting(err), errors.Is(err, context.Canceled):
		return false
	case IsPassing(err), Is[*laterError](err):
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

// Is says whether err is of a type, or wraps one that is.
func Is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
