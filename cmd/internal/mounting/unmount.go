package mounting

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
	"flatimg/fs/mountpoint"
)

// serverEndsWithin is how long a server may take to end after its mount is
// gone. It only closes files.
const serverEndsWithin = 10 * time.Second

// Unmount unmounts a mount of ours and returns when its server has ended. With
// lazy it detaches it, and does not wait for those who use it.
func Unmount(ctx context.Context, path string, lazy bool) error {
	mount, err := mountpoint.Find(path)
	if err != nil {
		return failed(path, err, "")
	}
	switch {
	case mount == nil:
		return failed(path, mountpoint.ErrNotMounted, "findmnt -t fuse.flatimg lists the mounts there are")
	case !mount.IsOurs():
		return failed(path, fmt.Errorf("the mount there is of type %s, not flatimg", mount.Type), "umount "+mount.Point)
	}

	// A process that has ended can't be waited for by its ID alone.
	server := -1
	pid, err := serverOf(mount)
	if err == nil {
		if server, err = unix.PidfdOpen(pid, 0); err == nil {
			defer unix.Close(server)
		}
	}
	// Of an error nothing follows: the mount may be stale, or another user's.
	if errors.Is(err, errNoAnswer) && !lazy {
		return failed(mount.Point, err, "flatimg unmount --lazy "+mount.Point+" detaches it all the same")
	}

	switch err := mountpoint.Unmount(ctx, mount.Point, lazy); {
	case errors.Is(err, unix.EBUSY):
		return failed(mount.Point, err, fmt.Sprintf("who uses it: fuser -vm %s; to detach it all the same: flatimg unmount --lazy %s", mount.Point, mount.Point))
	case err != nil:
		return failed(mount.Point, err, "")
	}
	if server < 0 || lazy {
		return nil
	}
	if err := waitFor(server, serverEndsWithin); err != nil {
		return failed(mount.Point, fmt.Errorf("it is unmounted, but its server, process %d, still runs: %w", pid, err), fmt.Sprintf("kill %d", pid))
	}
	return nil
}

func failed(path string, err error, hint string) error {
	return &cli.Error{Err: fmt.Errorf("unmount %s: %w", path, err), Hint: hint, Code: cli.ExitMount}
}

// waitFor waits until the process of a pidfd has ended.
func waitFor(pidfd int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return context.DeadlineExceeded
		}
		// Readable when the process has ended (pidfd_open(2)).
		poll := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(left.Milliseconds())+1)
		switch {
		case n > 0:
			return nil
		case err != nil && err != unix.EINTR:
			return err
		}
	}
}
