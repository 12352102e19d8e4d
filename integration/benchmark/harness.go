package main

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"flatimg/integration/rig"
)

// harness is to a benchmark what testing.T is to a test: temporary folders and
// cleanups. A fatal failure ends the group that is being measured.
type harness struct {
	dir string // of the temporary folders

	mu       sync.Mutex
	cleanups []func() // protected by mu
	failed   bool     // protected by mu
}

var _ = (rig.T)((*harness)(nil))

func newHarness(dir string) *harness { return &harness{dir: dir} }

// abort is the panic by which Fatalf ends a group.
type abort struct{ error }

// attempt calls f, and returns the failure that ended it.
func (h *harness) attempt(f func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case abort:
			err = p.error
		default:
			panic(p)
		}
	}()
	f()
	return nil
}

// cleanup calls what Cleanup was given, the last first.
func (h *harness) cleanup() { h.cleanupTo(0) }

// scoped calls f and cleans up what it has left: mounts of one measurement must
// not disturb the next.
func (h *harness) scoped(f func()) {
	h.mu.Lock()
	n := len(h.cleanups)
	h.mu.Unlock()
	defer h.cleanupTo(n)
	f()
}

func (h *harness) cleanupTo(n int) {
	for {
		h.mu.Lock()
		if len(h.cleanups) <= n {
			h.mu.Unlock()
			return
		}
		last := h.cleanups[len(h.cleanups)-1]
		h.cleanups = h.cleanups[:len(h.cleanups)-1]
		h.mu.Unlock()
		if err := h.attempt(last); err != nil {
			h.Errorf("%v", err)
		}
	}
}

func (h *harness) Helper() {}

func (h *harness) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

func (h *harness) Errorf(format string, args ...any) {
	h.mu.Lock()
	h.failed = true
	h.mu.Unlock()
	h.Logf(format, args...)
}

func (h *harness) Fatalf(format string, args ...any) { panic(abort{fmt.Errorf(format, args...)}) }

// Skipf is what a missing tool leads to.
func (h *harness) Skipf(format string, args ...any) {
	panic(abort{fmt.Errorf("not measured: "+format, args...)})
}

func (h *harness) Failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

func (h *harness) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

func (h *harness) TempDir() string {
	dir, err := os.MkdirTemp(h.dir, "flatimg-bench-")
	if err != nil {
		h.Fatalf("%v", err)
	}
	h.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			h.Logf("%v", err)
		}
	})
	return dir
}
