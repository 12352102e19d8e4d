package area

import (
	"os"
	"sync"

	"flatimg/cmd/internal/servers"
)

// source is a complete file of the area, to be sent.
type source struct {
	*os.File
	size int64
	mu   sync.Mutex // protects the position of the descriptor
}

var _ = (servers.Source)((*source)(nil))

// Size implements [servers.Source].
func (s *source) Size() int64 { return s.size }

// NextData implements [servers.Source].
func (s *source) NextData(off int64) (start, end int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return nextData(s.File, off, s.size)
}
