package servertest

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"flatimg/cmd/internal/servers"
)

// Log is a log that counts and keeps.
type Log struct {
	SentBytes, KeptBytes atomic.Int64

	mu    sync.Mutex
	State json.RawMessage
	Said  []string
}

var _ = (servers.Log)((*Log)(nil))

// Sent implements [servers.Log].
func (l *Log) Sent(n int64) { l.SentBytes.Add(n) }

// Kept implements [servers.Log].
func (l *Log) Kept(n int64) { l.KeptBytes.Add(n) }

// Keep implements [servers.Log].
func (l *Log) Keep(state any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.State, _ = json.Marshal(state)
}

// Say implements [servers.Log].
func (l *Log) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Said = append(l.Said, fmt.Sprintf(format, args...))
}

// InterruptingLog interrupts when data is sent.
type InterruptingLog struct {
	Log
	Cancel context.CancelFunc
}

// Sent implements [servers.Log].
func (l *InterruptingLog) Sent(n int64) {
	l.Log.Sent(n)
	if n > 0 {
		l.Cancel()
	}
}
