package servers

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames from to a name that must be free (renameat2(2),
// RENAME_NOREPLACE); where the file system doesn't know that, with a link.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	case err != nil:
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
