package transfer

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"flatimg/cmd/internal/cli"
)

// Usage is an error in what the user wrote.
func Usage(err error, hint string, args ...any) error {
	return &cli.Error{Err: err, Hint: fmt.Sprintf(hint, args...), Code: cli.ExitUsage}
}

// Exists is the error for a target that is there already.
func Exists(dest string) error {
	return &cli.Error{
		Err:  fmt.Errorf("%s: %w", dest, fs.ErrExist),
		Hint: "--force replaces it",
		Code: cli.ExitExists,
	}
}

// NoSpace is the error for a file of need bytes where there are only free ones.
func NoSpace(where string, need, free int64) error {
	return &cli.Error{
		Err:  fmt.Errorf("%s: %w: %s needed, %s free", where, syscall.ENOSPC, cli.FormatSize(need), cli.FormatSize(free)),
		Hint: "make room there, or choose another destination",
		Code: cli.ExitNoSpace,
	}
}

// ServerError says of which destination and of what an error of a server is,
// unless it says that already; an error that has a hint and an exit code keeps
// them. Nil stays nil.
func ServerError(where, what string, err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*cli.Error](err)
	switch {
	case !ok:
		e = &cli.Error{Code: cli.ExitServer}
	case strings.Contains(err.Error(), where):
		return err
	}
	return &cli.Error{Err: fmt.Errorf("%s: %s: %w", where, what, err), Hint: e.Hint, Code: e.Code}
}

// NoVerification is what a [servers.Verifier] returns whose server has no
// checksum.
func NoVerification(where, why string) error {
	return fmt.Errorf("%s: %s: %w", where, why, errors.ErrUnsupported)
}

// ErrDiffers is what [Differs] wraps.
var ErrDiffers = errors.New("what arrived differs from what was sent")

// Differs is the error for what arrived otherwise than it was sent.
func Differs(where string, got []byte, by string, want []byte) error {
	return &cli.Error{
		Err:  fmt.Errorf("%s: %w: the checksum is %x (%s), must be %x", where, ErrDiffers, got, by, want),
		Hint: "nothing was published; try again, and suspect the server's disk or memory",
		Code: cli.ExitServer,
	}
}
