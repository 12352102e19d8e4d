package fs

import (
	"context"
	"errors"
	"syscall"

	"flatimg/layers"
)

// sourceError marks an error as one that lies in a source image, for the
// command's exit code, and leaves its text alone.
type sourceError struct{ err error }

func (e sourceError) Error() string   { return e.err.Error() }
func (e sourceError) Unwrap() []error { return []error{e.err, layers.ErrSource} }

// toErrno returns what the kernel is told about err; see the package's
// documentation. What an image's files answered (ENOENT, EACCES …) is not
// passed on: it would be taken as said of the view.
func toErrno(err error) syscall.Errno {
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return errno
		}
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, layers.ErrRefused):
		return syscall.EACCES
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return syscall.EINTR
	}
	return syscall.EIO
}
