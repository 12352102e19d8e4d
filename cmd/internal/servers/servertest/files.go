package servertest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// WriteFile makes a file of a text.
func WriteFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// DiskUsage returns the bytes that a file takes on disk.
func DiskUsage(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512
}

// CheckFile checks that a folder has one file with the content of src.
func CheckFile(t *testing.T, dir, name string, src *Source) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || !bytes.Equal(b, Content(t, src)) {
		t.Errorf("%s: %d bytes, %v; must be %d", name, len(b), err, src.Size())
	}
	CheckOnly(t, dir, name)
}

// CheckOnly checks the names in a folder.
func CheckOnly(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("in the folder: %q, want %q", names, want)
	}
}

// OldDisk makes a file of size bytes that are not zeros.
func OldDisk(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xee}, int(size)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// CheckDiskFile compares what an export keeps in a file with the source.
func CheckDiskFile(t *testing.T, path string, src *Source) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := src.Size(); !bytes.Equal(got[:n], Content(t, src)) {
		t.Error("the disk differs from the source")
	}
}
