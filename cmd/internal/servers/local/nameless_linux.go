package local

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// createNameless creates a file in dir without a name (open(2), O_TMPFILE). The
// error wraps [errors.ErrUnsupported] where that does not work.
func createNameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, newFile)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT):
		// EISDIR and ENOENT are of kernels and file systems that take it for
		// an ordinary open of the folder.
		return nil, fmt.Errorf("%s: %w: %w", dir, errors.ErrUnsupported, err)
	case err != nil:
		return nil, &os.PathError{Op: "create a file in", Path: dir, Err: err}
	}
	f := os.NewFile(uintptr(fd), dir)
	// It will get its name through /proc. Better know now than after hours.
	if _, err := os.Stat(procPath(f)); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %w", errors.ErrUnsupported, err)
	}
	return f, nil
}

func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// linkNameless gives f, a file without a name, the name path, which must be
// free. Through /proc, since linking a descriptor itself takes a privilege.
func linkNameless(f *os.File, path string) error {
	err := unix.Linkat(unix.AT_FDCWD, procPath(f), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &os.PathError{Op: "link", Path: path, Err: err}
	}
	return nil
}
