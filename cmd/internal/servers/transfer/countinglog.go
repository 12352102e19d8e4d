package transfer

import (
	"sync/atomic"

	"flatimg/cmd/internal/servers"
)

// CountingLog counts in Total what is sent, too.
type CountingLog struct {
	servers.Log
	Total atomic.Int64
}

// Sent implements [servers.Log].
func (l *CountingLog) Sent(n int64) {
	l.Total.Add(n)
	l.Log.Sent(n)
}
