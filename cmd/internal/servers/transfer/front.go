package transfer

import "sync"

// Front follows how far chunks have arrived that are begun in order, and end in
// any. Safe for concurrent use.
type Front struct {
	// Advance, which may be nil, is called with the offset before which all has
	// arrived, each time that it grows, by one goroutine at a time.
	Advance func(off int64)

	mu    sync.Mutex
	begun []*Pending // in order
}

// Pending is a chunk under way.
type Pending struct {
	end     int64
	arrived bool
}

// Begin says that the next chunk, which ends at offset end, is under way.
func (f *Front) Begin(end int64) *Pending {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &Pending{end: end}
	f.begun = append(f.begun, p)
	return p
}

// Arrive says that a chunk has arrived.
func (f *Front) Arrive(p *Pending) {
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
	if f.Advance != nil {
		f.Advance(off)
	}
}
