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

// HasLandlock says whether the kernel has Landlock (landlock_create_ruleset(2)
// tells the version of its interface).
func HasLandlock() bool {
	const tellVersion = 1 // LANDLOCK_CREATE_RULESET_VERSION
	version, _, err := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, tellVersion)
	return err == 0 && version > 0
}

func kill(pid int) { unix.Kill(pid, unix.SIGKILL) }
