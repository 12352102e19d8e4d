package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Mounted is a mount of the program.
type Mounted struct {
	// Point is the mount point.
	Point string
	// PID of the server process.
	PID int
	// Log is the path of the server's log, which is shown if the test fails.
	Log string

	descriptors map[string]int // just after mounting
	gone        bool
}

// Mount runs "flatimg mount ARGS… POINT" on a new mount point and returns the
// point. When the test ends it unmounts, and fails the test when the server
// kept files open that nobody uses, or when mount or server outlive unmount.
func Mount(t T, args ...string) string {
	t.Helper()
	return NewMount(t, args...).Point
}

// NewMount is [Mount] for tests that want to know about the server too.
func NewMount(t T, args ...string) *Mounted {
	t.Helper()
	NeedFUSE(t)
	m := &Mounted{Point: t.TempDir(), Log: filepath.Join(t.TempDir(), "log")}
	t.Cleanup(func() {
		if text, err := os.ReadFile(m.Log); err == nil && t.Failed() {
			t.Logf("log of the mount at %s:\n%s", m.Point, text)
		}
	})
	r := Flatimg(t, slices.Concat([]string{"mount", "--log-file", m.Log}, args, []string{m.Point})...)
	// Whatever the exit code: a failed mount must not stay until the folder
	// is removed.
	t.Cleanup(func() { m.cleanup(t) })
	if r.Code != 0 {
		t.Fatalf("flatimg mount %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	pids := Servers(t, m.Point)
	if len(pids) != 1 {
		t.Fatalf("mount of %s: server processes %v, want one", m.Point, pids)
	}
	m.PID = pids[0]
	m.descriptors = openFiles(m.PID)
	return m
}

// Unmount unmounts before the test ends, with all checks.
func (m *Mounted) Unmount(t T) {
	t.Helper()
	m.checkDescriptors(t)
	r := Flatimg(t, "unmount", m.Point)
	if r.Code != 0 {
		t.Errorf("flatimg unmount: exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	// unmount promises that both are gone when it returns.
	if IsMounted(t, m.Point) {
		t.Errorf("%s is still mounted after unmount", m.Point)
	}
	if pids := Servers(t, m.Point); len(pids) > 0 {
		t.Errorf("server %v of %s still runs after unmount", pids, m.Point)
	}
	m.gone = true
}

// cleanup leaves neither mount nor server behind, whatever the test did.
func (m *Mounted) cleanup(t T) {
	t.Helper()
	if !m.gone && IsMounted(t, m.Point) {
		m.Unmount(t)
	}
	forceUnmount(m.Point)
	for _, pid := range Servers(t, m.Point) {
		kill(pid)
	}
}

// releaseLimit is more than the kernel and a server take to let go of a handle
// on a machine that is busy.
const releaseLimit = 30 * time.Second

// checkDescriptors fails the test when the server has files open more often
// than once for each view and twice in all, beyond those it had when it began.
// The kernel releases handles after the reader's close has returned, so that
// it takes a moment for them to go.
func (m *Mounted) checkDescriptors(t T) {
	t.Helper()
	if !IsMounted(t, m.Point) {
		return
	}
	views, _ := os.ReadDir(m.Point)
	var leaked []string
	deadline := time.Now().Add(releaseLimit)
	for {
		leaked = leaked[:0]
		for path, n := range openFiles(m.PID) {
			if limit := m.descriptors[path] + len(views) + 2; n > limit {
				leaked = append(leaked, fmt.Sprintf("%s: %d", path, n))
			}
		}
		if len(leaked) == 0 {
			return
		}
		if time.Now().After(deadline) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	slices.Sort(leaked)
	t.Errorf("server of %s leaks descriptors:\n%s", m.Point, strings.Join(leaked, "\n"))
}

// openFiles counts a process's descriptors by the file that they lead to.
func openFiles(pid int) map[string]int {
	files := map[string]int{}
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && filepath.IsAbs(path) && !strings.HasPrefix(path, "/dev/") {
			files[path]++
		}
	}
	return files
}

// IsMounted says whether something is mounted at path, alive or not.
func IsMounted(t T, path string) bool {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatalf("%v", err)
	}
	for line := range strings.Lines(string(info)) {
		// proc(5): the fifth field is the mount point; blanks in it are octal.
		if f := strings.Fields(line); len(f) > 4 && strings.ReplaceAll(f[4], `\040`, " ") == path {
			return true
		}
	}
	return false
}

// Servers returns the processes of the program under test that serve the mount
// point.
func Servers(t T, point string) []int {
	t.Helper()
	program, err := os.Stat(Binary(t))
	if err != nil {
		t.Fatalf("%v", err)
	}
	var pids []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		exe, err := os.Stat(filepath.Join(proc, "exe"))
		if err != nil || !os.SameFile(exe, program) {
			continue
		}
		cmdline, _ := os.ReadFile(filepath.Join(proc, "cmdline"))
		if slices.Contains(strings.Split(string(cmdline), "\x00"), point) {
			pids = append(pids, pid)
		}
	}
	return pids
}
