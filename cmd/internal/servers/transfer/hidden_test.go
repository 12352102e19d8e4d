package transfer

import (
	"strings"
	"testing"
)

func TestHiddenName(t *testing.T) {
	for _, name := range []string{"a", strings.Repeat("x", nameMax)} {
		hidden := HiddenName(name)
		if len(hidden) > nameMax || hidden[0] != '.' || hidden == HiddenName(name) {
			t.Errorf("%q is a bad hidden name", hidden)
		}
	}
}
