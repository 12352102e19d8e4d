package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// TmpFS mounts a tmpfs of size bytes and returns its folder.
func TmpFS(t T, size int64) string {
	t.Helper()
	NeedRoot(t)
	return mountAt(t, "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs")
}

// XFS mounts an XFS of size bytes (at least 300 MB, mkfs.xfs says) that can
// share blocks between files, and returns its folder.
func XFS(t T, size int64) string {
	t.Helper()
	return loopMount(t, size, "mkfs.xfs", "-q", "-m", "reflink=1")
}

// Ext4 mounts an ext4 of size bytes and returns its folder.
func Ext4(t T, size int64) string {
	t.Helper()
	return loopMount(t, size, "mkfs.ext4", "-q", "-F")
}

// loopMount makes a file system in a sparse file and mounts it.
func loopMount(t T, size int64, mkfs string, args ...string) string {
	t.Helper()
	NeedRoot(t)
	Need(t, mkfs)
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatalf("%v", err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatalf("%v", err)
	}
	Run(t, mkfs, append(args, file)...)
	return mountAt(t, "-o", "loop", file)
}

// TmpFSAt mounts a tmpfs of size bytes over the folder dir.
func TmpFSAt(t T, dir string, size int64) {
	t.Helper()
	NeedRoot(t)
	mountOver(t, dir, "-t", "tmpfs", "-o", fmt.Sprintf("size=%d", size), "tmpfs")
}

// LoopDevice makes a file a block device and returns its path.
func LoopDevice(t T, file string, args ...string) string {
	t.Helper()
	NeedRoot(t)
	device := strings.TrimSpace(Run(t, "losetup", append(args, "--find", "--show", file)...))
	t.Cleanup(func() { Run(t, "losetup", "--detach", device) })
	return device
}

func mountAt(t T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	mountOver(t, dir, args...)
	return dir
}

func mountOver(t T, dir string, args ...string) {
	t.Helper()
	// Before mount, so that a mount that fails half way goes too; the loop
	// device frees itself with its last user.
	t.Cleanup(func() { forceUnmount(dir) })
	Run(t, "mount", append(args, dir)...)
}
