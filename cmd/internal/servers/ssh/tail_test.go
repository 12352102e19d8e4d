package ssh

import "testing"

func TestTail(t *testing.T) {
	var b Tail
	for range 1000 {
		b.Write([]byte("a banner of many lines\r\n"))
	}
	b.Write([]byte("Permission denied"))
	b.Write([]byte(" (publickey).\r\n"))
	if got, want := b.String(), "a banner of many lines; a banner of many lines; Permission denied (publickey)."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if len(b.b) > tailBytes {
		t.Errorf("%d bytes kept", len(b.b))
	}
}
