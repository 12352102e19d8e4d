// Package mountpoint finds and removes mounts of this program.
//
// Nothing here asks the file system that is mounted, which may be dead or
// hang: [Find] reads the kernel's table of mounts.
package mountpoint

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Subtype is the second part of the mounts' file system type.
const Subtype = "flatimg"

// ErrNotMounted says that there is no mount at a path.
var ErrNotMounted = errors.New("not mounted")

// Mount is an entry of the table of mounts.
type Mount struct {
	// Point is the mount point.
	Point string
	// Type of the file system: "fuse.flatimg".
	Type string
	// Source as df shows it.
	Source string
	// Major and Minor are the device number.
	Major, Minor uint32
}

// IsOurs says whether this program serves the mount.
func (m *Mount) IsOurs() bool { return m.Type == "fuse."+Subtype }

// Device is the device number as stat(2) has it.
func (m *Mount) Device() uint64 { return unix.Mkdev(m.Major, m.Minor) }

// Find returns the topmost mount at path, or nil if there is none. Links that
// lead to a mount point are followed.
func Find(path string) (*Mount, error) {
	mounts, err := table()
	if err != nil {
		return nil, err
	}
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// Each link is resolved by itself, as resolving the whole path would ask
	// the file system at its end.
	const maxLinks = 40 // as in the kernel, path_resolution(7)
	for range maxLinks {
		if parent, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(parent, filepath.Base(path))
		}
		for i := len(mounts) - 1; i >= 0; i-- {
			if mounts[i].Point == path {
				return &mounts[i], nil
			}
		}
		target, err := os.Readlink(path)
		if err != nil {
			return nil, nil
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return nil, fmt.Errorf("%s: %w", path, unix.ELOOP)
}

// table returns all mounts, later ones over earlier ones.
func table() ([]Mount, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parse(string(text)), nil
}

// parse parses a table in the format of /proc/PID/mountinfo (proc(5)), and
// leaves out lines that it does not understand:
//
//	36 35 98:0 / /mnt rw,noatime master:1 - ext4 /dev/root rw,errors=continue
func parse(text string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(text) {
		before, after, ok := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(g) < 2 {
			continue
		}
		var m Mount
		if n, err := fmt.Sscanf(f[2], "%d:%d", &m.Major, &m.Minor); n != 2 || err != nil {
			continue
		}
		m.Point, m.Type, m.Source = unescape(f[4]), g[0], unescape(g[1])
		mounts = append(mounts, m)
	}
	return mounts
}

// unescape replaces \ooo, as blanks, line ends and backslashes are written.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
