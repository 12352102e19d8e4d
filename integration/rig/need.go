package rig

import (
	"os"
	"os/exec"
	"path/filepath"
)

// Need returns the path of a tool.
func Need(t T, tool string) string {
	t.Helper()
	// Debian keeps servers and mkfs where a user's PATH does not lead.
	places := []string{"", "/usr/sbin"}
	// What integration/run-tests has built.
	if cache, err := os.UserCacheDir(); err == nil {
		places = append(places, filepath.Join(cache, "flatimg-tests", "bin"))
	}
	for _, dir := range places {
		if path, err := exec.LookPath(filepath.Join(dir, tool)); err == nil {
			return path
		}
	}
	missing(t, "%s is not installed", tool)
	return ""
}

// NeedFile says that the test needs a file or folder of a package that has no
// command of its own.
func NeedFile(t T, path, packageName string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		missing(t, "%s is not installed: %v", packageName, err)
	}
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
