// Package servertest has what the tests of several protocols share: sources, a log,
// and checks of what arrived.
package servertest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"flatimg/cmd/internal/servers"
)

// Run is a run of data.
type Run struct{ Off, Length int64 }

// Data returns the run of length bytes at an offset.
func Data(off, length int64) Run { return Run{off, length} }

// Source is a source of runs of data, each as long as it says.
type Source struct {
	*bytes.Reader
	Runs []Run // in order
}

var _ = (servers.Source)((*Source)(nil))

// NextData implements [servers.Source].
func (s *Source) NextData(off int64) (start, end int64, err error) {
	for _, r := range s.Runs {
		if off < r.Off+r.Length {
			return max(off, r.Off), r.Off + r.Length, nil
		}
	}
	return s.Size(), s.Size(), nil
}

// NewSource returns a source of size bytes: data in the runs, zeros elsewhere.
func NewSource(size int64, runs ...Run) *Source {
	b := make([]byte, size)
	for _, r := range runs {
		for i := range r.Length {
			b[r.Off+i] = byte((r.Off+i)%251 + 1)
		}
	}
	return &Source{bytes.NewReader(b), runs}
}

// SparseSource returns a source of random data and holes.
func SparseSource(size int64, seed uint64) *Source {
	r := rand.New(rand.NewPCG(seed, 1))
	var runs []Run
	for off := r.Int64N(1 << 20); off < size; {
		n := min(1+r.Int64N(2<<20), size-off)
		runs = append(runs, Data(off, n))
		off += n + 1 + r.Int64N(1<<20)
	}
	fill := rand.NewChaCha8([32]byte{byte(seed)})
	b := make([]byte, size)
	for _, run := range runs {
		fill.Read(b[run.Off : run.Off+run.Length])
	}
	return &Source{bytes.NewReader(b), runs}
}

// SmallSource returns a source of some megabytes with data here and there.
func SmallSource(seed uint64) *Source {
	r := rand.New(rand.NewPCG(seed, 1))
	var runs []Run
	off := int64(0)
	for range 12 {
		run := Data(off+r.Int64N(300_000), 1+r.Int64N(500_000))
		runs = append(runs, run)
		off = run.Off + run.Length
	}
	return NewSource(off+r.Int64N(200_000), runs...)
}

// LargeSource is a source of any size with little data.
type LargeSource struct {
	Length int64
	Runs   []Run // in order
}

var _ = (servers.Source)((*LargeSource)(nil))

// Size implements [servers.Source].
func (s *LargeSource) Size() int64 { return s.Length }

// ReadAt implements [servers.Source].
func (s *LargeSource) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for _, r := range s.Runs {
		for i := max(r.Off, off); i < min(r.Off+r.Length, off+int64(len(p))); i++ {
			p[i-off] = byte(i%251 + 1)
		}
	}
	return len(p), nil
}

// NextData implements [servers.Source].
func (s *LargeSource) NextData(off int64) (start, end int64, err error) {
	for _, r := range s.Runs {
		if off < r.Off+r.Length {
			return max(off, r.Off), r.Off + r.Length, nil
		}
	}
	return s.Length, s.Length, nil
}

// TeraSource has 1 TiB and little data.
func TeraSource() *LargeSource {
	const size = 1 << 40
	return &LargeSource{Length: size, Runs: []Run{{0, 512}, {size / 3 / 4096 * 4096, 1 << 20}, {size - 4096, 4096}}}
}

// Content returns all bytes of a source.
func Content(t *testing.T, src servers.Source) []byte {
	t.Helper()
	b := make([]byte, src.Size())
	if n, err := src.ReadAt(b, 0); n < len(b) {
		t.Fatal(err)
	}
	return b
}

const (
	// MixedSize is that of a [MixedSource] in bytes.
	MixedSize = 5 << 20
	// MixedData is how many of them are data.
	MixedData = 600_000 + 1000 + 1<<20
)

// MixedSource returns a source of data and holes.
func MixedSource() *Source {
	return NewSource(MixedSize, Data(100_000, 600_000), Data(2<<20, 1000), Data(3<<20+5, 1<<20))
}
