package web

import (
	"fmt"
	"testing"
)

func TestParseContentRange(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"bytes 0-0/1", "0 1 1 true"},
		{"BYTES 5-9/*", "5 10 -1 true"},
		{"bytes 5-9/9", "0 0 0 false"},
		{"bytes 9-5/99", "0 0 0 false"},
		{"bytes */99", "0 0 0 false"},
		{"bytes 0--1/9", "0 0 0 false"},
		{"bytes 0-99999999999999999999/*", "0 0 0 false"},
		{"items 0-1/2", "0 0 0 false"},
		{"", "0 0 0 false"},
	} {
		start, end, size, err := ParseContentRange(c.text)
		if got := fmt.Sprint(start, end, size, err == nil); got != c.want {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
}
