package rig

import "testing"

func TestPortsAreGivenOnce(t *testing.T) {
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range ports {
		if claim(port) {
			t.Errorf("port %d is given a second time", port)
		}
	}
}
