package servers

import (
	"fmt"
	"io/fs"
	"syscall"

	"flatimg/cmd/internal/cli"
)

// usage is an error in what the user wrote.
func usage(err error, hint string, args ...any) error {
	return &cli.Error{Err: err, Hint: fmt.Sprintf(hint, args...), Code: cli.ExitUsage}
}

// exists is the error for a target that is there already.
func exists(dest string) error {
	return &cli.Error{
		Err:  fmt.Errorf("%s: %w", dest, fs.ErrExist),
		Hint: "--force replaces it",
		Code: cli.ExitExists,
	}
}

// noSpace is the error for a file of need bytes where there are only free ones.
func noSpace(where string, need, free int64) error {
	return &cli.Error{
		Err:  fmt.Errorf("%s: %w: %s needed, %s free", where, syscall.ENOSPC, cli.FormatSize(need), cli.FormatSize(free)),
		Code: cli.ExitNoSpace,
	}
}
