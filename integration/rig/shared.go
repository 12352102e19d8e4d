package rig

import (
	"os"
	"sync"
)

// shared holds what ends the servers that all tests of a process share, since
// they are slow to start.
var shared struct {
	mu   sync.Mutex
	ends []func()
}

// atEnd lets [Main] call f when all tests have ended, before what was given
// earlier.
func atEnd(f func()) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.ends = append(shared.ends, f)
}

func endShared() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	for i := len(shared.ends) - 1; i >= 0; i-- {
		shared.ends[i]()
	}
	shared.ends = nil
}

// sharedT is a test that makes something for those after it, too: what it asks
// for ends with the process.
type sharedT struct{ T }

// Cleanup calls f when all tests have ended.
func (s *sharedT) Cleanup(f func()) { atEnd(f) }

// TempDir returns a folder that stays until all tests have ended.
func (s *sharedT) TempDir() string {
	s.Helper()
	dir, err := os.MkdirTemp("", "rig-")
	if err != nil {
		s.Fatalf("%v", err)
	}
	atEnd(func() { os.RemoveAll(dir) })
	return dir
}

// Failed says no: whether the test that happened to be the first has failed
// says nothing of what all share.
func (s *sharedT) Failed() bool { return false }

// lazy is what the first test that needs it makes for all tests of the process.
type lazy[V any] struct {
	once  sync.Once
	value V
	made  bool
}

// get returns the value. When make fails the first test, get fails all others.
func (l *lazy[V]) get(t T, make func(T) V) V {
	t.Helper()
	l.once.Do(func() {
		l.value = make(&sharedT{T: t})
		l.made = true
	})
	if !l.made {
		t.Fatalf("another test could not start it")
	}
	return l.value
}
