package servers

import "sync"

// front follows how far chunks have arrived that are begun in order, and end in
// any. Safe for concurrent use.
type front struct {
	// advance, which may be nil, is called with the offset before which all has
	// arrived, each time that it grows, by one goroutine at a time.
	advance func(off int64)

	mu    sync.Mutex
	begun []*pending // in order
}

// pending is a chunk under way.
type pending struct {
	end     int64
	arrived bool
}

// begin says that the next chunk, which ends at offset end, is under way.
func (f *front) begin(end int64) *pending {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &pending{end: end}
	f.begun = append(f.begun, p)
	return p
}

// arrive says that a chunk has arrived.
func (f *front) arrive(p *pending) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.arrived = true
	n := 0
	for n < len(f.begun) && f.begun[n].arrived {
		n++
	}
	if n == 0 {
		return
	}
	off := f.begun[n-1].end
	f.begun = f.begun[n:]
	if f.advance != nil {
		f.advance(off)
	}
}
