package rig

import (
	"os/exec"

	"golang.org/x/sys/unix"
)

// forceUnmount detaches whatever is mounted at path; an error means that
// nothing was.
func forceUnmount(path string) {
	if unix.Unmount(path, unix.MNT_DETACH) == unix.EPERM {
		exec.Command("fusermount3", "-uzq", path).Run()
	}
}

func kill(pid int) { unix.Kill(pid, unix.SIGKILL) }
