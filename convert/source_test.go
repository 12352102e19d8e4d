package convert

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"flatimg/layers"
	"flatimg/layers/volume"
)

// disk is a source made of runs of data, with a pattern that differs at each
// offset and is zero nowhere.
type disk struct {
	size    int64
	extents []layers.Extent
}

// newDisk returns a disk with data in the given runs, which are in order. Every
// second gap is zeros, the others are holes; every third run is compressed.
func newDisk(size int64, data ...Run) *disk {
	d := &disk{size: size}
	var at int64
	add := func(end int64, kind volume.Kind) {
		if at < end {
			d.extents = append(d.extents, layers.Extent{Offset: at, Length: end - at, Kind: kind})
			at = end
		}
	}
	for i, r := range data {
		add(r.Offset, volume.Kind(i%2)) // Hole, Zero
		kind := volume.Data
		if i%3 == 2 {
			kind = volume.Compressed
		}
		add(r.Offset+r.Length, kind)
	}
	add(size, volume.Hole)
	return d
}

// randomDisk returns a disk with runs of about the given length and gaps.
func randomDisk(size int64, seed uint64, run, gap int64) *disk {
	r := rand.New(rand.NewPCG(seed, 0))
	var data []Run
	for at := r.Int64N(gap + 1); at < size; {
		length := min(size-at, 1+r.Int64N(run))
		data = append(data, Run{at, length})
		at += length + r.Int64N(gap+1)
	}
	return newDisk(size, data...)
}

// fuzzDisk returns a disk of size bytes whose runs of data are pairs of bytes: the
// gap before it, as the square times scale, and its length, as the square.
func fuzzDisk(size int64, pairs []byte, scale int64) *disk {
	var data []Run
	var at int64
	for i := 0; i+1 < len(pairs); i += 2 {
		at += int64(pairs[i]) * int64(pairs[i]) * scale
		length := min(size-at, 1+int64(pairs[i+1])*int64(pairs[i+1]))
		if length < 1 {
			break
		}
		data = append(data, Run{at, length})
		at += length
	}
	return newDisk(size, data...)
}

func (d *disk) Size() int64 { return d.size }

func (d *disk) Fingerprint() [32]byte {
	return sha256.Sum256(fmt.Append(nil, d.size, d.extents))
}

func (d *disk) Extents(off, length int64) iter.Seq2[layers.Extent, error] {
	return func(yield func(layers.Extent, error) bool) {
		end := min(d.size, off+length)
		first := sort.Search(len(d.extents), func(i int) bool { return d.extents[i].Offset+d.extents[i].Length > off })
		for _, e := range d.extents[first:] {
			start, stop := max(off, e.Offset), min(end, e.Offset+e.Length)
			if start >= stop {
				return
			}
			e.Offset, e.Length = start, stop-start
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (d *disk) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if off < 0 || length <= 0 || off+length > d.size {
		panic("request outside the disk")
	}
	for e := range d.Extents(off, length) {
		s := layers.Segment{Length: e.Length, Origin: layers.Zeros}
		if holdsData(e) {
			s.Origin, s.Bytes = layers.Literal, pattern(e.Offset, e.Length)
		}
		dst = append(dst, s)
	}
	return dst, nil
}

// read returns the bytes of the disk, which are zeros past its end.
func (d *disk) read(off, length int64) []byte {
	p := make([]byte, length)
	for e := range d.Extents(off, length) {
		if holdsData(e) {
			copy(p[e.Offset-off:], pattern(e.Offset, e.Length))
		}
	}
	return p
}

// dataRuns returns the runs of data, neighbours merged.
func (d *disk) dataRuns() []Run {
	var runs []Run
	for _, e := range d.extents {
		if !holdsData(e) {
			continue
		}
		if n := len(runs); n > 0 && runs[n-1].Offset+runs[n-1].Length == e.Offset {
			runs[n-1].Length += e.Length
			continue
		}
		runs = append(runs, Run{e.Offset, e.Length})
	}
	return runs
}

// pattern returns the bytes of data at off: each 8 of them are a hash of their
// place, no byte is zero.
func pattern(off, length int64) []byte {
	first := off &^ 7
	p := make([]byte, 0, length+16)
	for at := first; at < off+length; at += 8 {
		h := (uint64(at) + 1) * 0x9e3779b97f4a7c15
		h ^= h >> 29
		p = binary.LittleEndian.AppendUint64(p, h|0x0101010101010101)
	}
	return p[off-first:][:length]
}

// build returns the target of spec, which must be possible.
func build(t testing.TB, src Disk, spec string) Target {
	t.Helper()
	s, err := ParseSpec(spec)
	if err != nil {
		t.Fatal(err)
	}
	target, err := New(src, s)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// read reads a range of a target and checks its segments.
func read(t testing.TB, target Target, off, length int64) []byte {
	t.Helper()
	segments, err := target.AppendSegments(nil, off, length)
	if err != nil {
		t.Fatalf("segments of %d bytes at %#x: %v", length, off, err)
	}
	var sum int64
	for _, s := range segments {
		if s.Length < 1 {
			t.Fatalf("segments of %d bytes at %#x: one is of %d bytes", length, off, s.Length)
		}
		sum += s.Length
	}
	if sum != length {
		t.Fatalf("segments of %d bytes at %#x are of %d bytes", length, off, sum)
	}
	p := bytes.Repeat([]byte{0xee}, int(length))
	if err := layers.ReadSegments(p, segments); err != nil {
		t.Fatal(err)
	}
	return p
}

// checkRanges compares many ranges of target with whole, its full content:
// around each of the edges and at random.
func checkRanges(t testing.TB, target Target, whole []byte, edges []int64) {
	t.Helper()
	size := int64(len(whole))
	check := func(from, to int64) {
		from, to = max(0, from), min(size, to)
		if from < to && !bytes.Equal(read(t, target, from, to-from), whole[from:to]) {
			t.Fatalf("[%#x, %#x) differs from what a read of the whole file gives", from, to)
		}
	}
	for _, edge := range edges {
		for _, length := range []int64{1, 2, 3, 7, 8, 9, 511, 4096, 5000} {
			for d := int64(-2); d <= 1; d++ {
				check(edge+d, edge+d+length)
				check(edge+d-length, edge+d)
			}
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		from := r.Int64N(size + 1)
		check(from, from+r.Int64N(min(size, 300<<10)+1))
	}
}

// checkRuns compares the data runs of target with its segments.
func checkRuns(t testing.TB, target Target) {
	t.Helper()
	segments, err := target.AppendSegments(nil, 0, target.Size())
	if err != nil {
		t.Fatal(err)
	}
	var want []Run
	var at, sum int64
	for _, s := range segments {
		if s.Origin != layers.Zeros {
			if n := len(want); n > 0 && want[n-1].Offset+want[n-1].Length == at {
				want[n-1].Length += s.Length
			} else {
				want = append(want, Run{at, s.Length})
			}
			sum += s.Length
		}
		at += s.Length
	}
	if got := collectRuns(t, target, 0); !slices.Equal(got, want) {
		t.Fatalf("runs of data\n%v, by its segments they are\n%v", got, want)
	}
	if got, err := Allocated(target); err != nil || got != sum {
		t.Fatalf("Allocated = %d, %v, want %d", got, err, sum)
	}
	for i, r := range want {
		for _, off := range []int64{r.Offset - 1, r.Offset, r.Offset + 1, r.Offset + r.Length - 1, r.Offset + r.Length} {
			start, end := target.Size(), target.Size()
			for _, r := range want[max(0, i-1):] {
				if off < r.Offset+r.Length {
					start, end = max(off, r.Offset), r.Offset+r.Length
					break
				}
			}
			if off < 0 {
				continue
			}
			if s, e, err := NextData(target, off); s != start || e != end || err != nil {
				t.Fatalf("NextData(%#x) = %#x, %#x, %v, want %#x, %#x", off, s, e, err, start, end)
			}
		}
	}
}

func collectRuns(t testing.TB, target Target, off int64) []Run {
	t.Helper()
	var runs []Run
	for r, err := range DataRuns(target, off) {
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, r)
	}
	return runs
}
