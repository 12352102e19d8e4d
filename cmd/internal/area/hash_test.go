package area

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"testing"
)

// memorySource is a source of runs of data.
type memorySource struct {
	*bytes.Reader
	runs [][2]int64 // start and end, in order
}

// newMemorySource has size bytes: data in the runs, zeros elsewhere.
func newMemorySource(size int64, runs ...[2]int64) memorySource {
	b := make([]byte, size)
	for i, r := range runs {
		copy(b[r[0]:r[1]], randomBytes(uint64(i), int(r[1]-r[0])))
	}
	return memorySource{bytes.NewReader(b), runs}
}

func (s memorySource) fault() error { return nil }

func (s memorySource) NextData(off int64) (start, end int64, err error) {
	for _, r := range s.runs {
		if off < r[1] {
			return max(off, r[0]), r[1], nil
		}
	}
	return s.Size(), s.Size(), nil
}

func (s memorySource) bytes() []byte {
	b := make([]byte, s.Size())
	s.ReadAt(b, 0)
	return b
}

// TestHasherGoesOn hashes in two runs with any boundary between, which JSON has
// kept.
func TestHasherGoesOn(t *testing.T) {
	src := newMemorySource(20<<20+13, [2]int64{100, 9 << 20}, [2]int64{9<<20 + 4096, 18 << 20}, [2]int64{20 << 20, 20<<20 + 13})
	want := sha256.Sum256(src.bytes())
	var states []hashState
	h := newHasher(src, nil)
	h.at = func(s hashState) { states = append(states, s) }
	if got, err := h.sum(t.Context()); err != nil || !bytes.Equal(got, want[:]) {
		t.Fatalf("%x, %v; want %x", got, err, want)
	}
	if len(states) < 2 {
		t.Errorf("%d states of 20 MiB", len(states))
	}
	for _, off := range []int64{1, 63, 64, 65, 100, 9 << 20, 9<<20 + 1, 19 << 20, 20<<20 + 12, 20<<20 + 13} {
		h := sha256.New()
		h.Write(src.bytes()[:off])
		states = append(states, hashState{off, marshalHash(h)})
	}
	for _, s := range states {
		kept, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var from hashState
		if err := json.Unmarshal(kept, &from); err != nil {
			t.Fatal(err)
		}
		h := newHasher(src, &from)
		if h.off != s.Offset {
			t.Errorf("begins at %d, not at %d", h.off, s.Offset)
		}
		if got, err := h.sum(t.Context()); err != nil || !bytes.Equal(got, want[:]) {
			t.Errorf("from %d: %x, %v; want %x", s.Offset, got, err, want)
		}
	}
	for _, damaged := range []hashState{{}, {Offset: 5}, {Offset: 5, State: []byte("nonsense")}, {Offset: 1 << 40, State: states[0].State}, {Offset: -1, State: states[0].State}} {
		if got, err := newHasher(src, &damaged).sum(t.Context()); err != nil || !bytes.Equal(got, want[:]) {
			t.Errorf("damaged %v: %x, %v", damaged, got, err)
		}
	}
}
