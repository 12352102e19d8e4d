package rig

import "testing"

// TestReserve takes ports that no server gets.
func TestReserve(t *testing.T) {
	port := lastPort + 1
	for !reserve(port) {
		port++
	}
	if reserve(port) {
		t.Errorf("port %d was reserved twice", port)
	}
}
