package mountpoint

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Unmount unmounts what is mounted at path, an absolute one. With lazy it is
// only detached: nobody new finds it, and it ends with its last user. Without,
// a mount that is in use gives [unix.EBUSY]. Where the system call is not
// permitted it calls fusermount3, which may unmount what its user has mounted.
func Unmount(ctx context.Context, path string, lazy bool) error {
	flags := unix.UMOUNT_NOFOLLOW
	if lazy {
		flags |= unix.MNT_DETACH
	}
	switch err := unix.Unmount(path, flags); {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL):
		return ErrNotMounted
	case !errors.Is(err, unix.EPERM):
		return err
	}
	helper, err := exec.LookPath("fusermount3")
	if err != nil {
		return fmt.Errorf("only root may do that without fusermount3: %w", err)
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	out, err := exec.CommandContext(ctx, helper, append(args, "--", path)...).CombinedOutput()
	switch text := strings.TrimSpace(string(out)); {
	case err == nil:
		return nil
	case strings.Contains(text, "busy"):
		return unix.EBUSY
	case text != "":
		return errors.New(text)
	default:
		return err
	}
}
