package rig

import (
	"os"
	"os/exec"
)

// Need returns the path of a tool.
func Need(t T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		// Debian keeps servers and mkfs where a user's PATH does not lead.
		path, err = exec.LookPath("/usr/sbin/" + tool)
	}
	if err != nil {
		missing(t, "%s is not installed", tool)
	}
	return path
}

// NeedFUSE says that the test mounts a FUSE file system.
func NeedFUSE(t T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		missing(t, "no FUSE: %v", err)
		return
	}
	f.Close()
	if os.Geteuid() != 0 {
		Need(t, "fusermount3")
	}
}

// NeedLandlock says that the test runs a process that takes rights from itself.
func NeedLandlock(t T) {
	t.Helper()
	if !HasLandlock() {
		missing(t, "the kernel has no Landlock")
	}
}

// NeedRoot says that the test mounts file systems or makes loop devices.
func NeedRoot(t T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "not root")
	}
}

// missing skips the test, or fails it where nothing may be missing.
func missing(t T, format string, args ...any) {
	t.Helper()
	if os.Getenv("FLATIMG_REQUIRE_TOOLS") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
