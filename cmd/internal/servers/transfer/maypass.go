package transfer

import (
	"context"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"flatimg/cmd/internal/cli"
)

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
