package ssh

import (
	"bytes"
	"sync"
)

// tailBytes is more than the messages of a program about one connection take.
const tailBytes = 4096

// Tail keeps the end of what is written to it. Safe for concurrent use.
type Tail struct {
	mu sync.Mutex
	b  []byte
}

// Write implements [io.Writer].
func (t *Tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-tailBytes):]
	return len(p), nil
}

// String returns the last lines that were written, as one.
func (t *Tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 3 // lines; a login banner would bury the reason
	lines := bytes.FieldsFunc(t.b, func(r rune) bool { return r == '\n' || r == '\r' })
	lines = lines[max(0, len(lines)-most):]
	return string(bytes.Join(lines, []byte("; ")))
}
