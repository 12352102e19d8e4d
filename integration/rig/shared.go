package rig

import "sync"

// shared holds what ends the servers that all tests of a process share, since
// they are slow to start.
var shared struct {
	mu   sync.Mutex
	ends []func()
}

// atEnd lets [Main] call f when all tests have ended.
func atEnd(f func()) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	shared.ends = append(shared.ends, f)
}

func endShared() {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	for _, end := range shared.ends {
		end()
	}
	shared.ends = nil
}
