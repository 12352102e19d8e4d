package convert

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"flatimg/layers"
	"flatimg/layers/volume"
)

func TestRaw(t *testing.T) {
	for _, d := range []*disk{
		newDisk(0),
		newDisk(1, Run{0, 1}),
		newDisk(3 * miB),
		randomDisk(3*miB+512, 1, 100*kiB, 100*kiB),
	} {
		target := build(t, d, "raw")
		whole := read(t, target, 0, target.Size())
		if !bytes.Equal(whole, d.read(0, d.size)) {
			t.Fatalf("a disk of %d bytes differs", d.size)
		}
		checkRanges(t, target, whole, []int64{0, d.size})
		checkRuns(t, target)
		if m, err := Measure(d, Spec{Format: "raw"}); err != nil || m != (Measurement{Required: d.size, FullyAllocated: d.size, GuestSize: d.size}) {
			t.Errorf("measure = %+v, %v", m, err)
		}
	}
}

// A hole costs one step, however long it is.
func TestNextDataInLongHoles(t *testing.T) {
	const size = 1 << 60
	d := newDisk(size, Run{size - 10, 4})
	target := build(t, d, "raw")
	if start, end, err := NextData(target, 0); start != size-10 || end != size-6 || err != nil {
		t.Errorf("NextData(0) = %d, %d, %v", start, end, err)
	}
	for _, off := range []int64{size - 6, size - 1, size, size + 1} {
		if start, end, err := NextData(target, off); start != size || end != size || err != nil {
			t.Errorf("NextData(%d) = %d, %d, %v", off, start, end, err)
		}
	}
	if _, _, err := NextData(target, -1); err == nil {
		t.Error("NextData(-1) has no error")
	}
}

// Zeros that fill up the last cluster are no data.
func TestNextDataPastDisk(t *testing.T) {
	target := build(t, newDisk(512, Run{0, 512}), "qcow2")
	end := target.Size() - 64*kiB + 512
	for _, off := range []int64{end, target.Size() - 1} {
		if start, stop, err := NextData(target, off); start != target.Size() || stop != start || err != nil {
			t.Errorf("NextData(%#x) = %#x, %#x, %v", off, start, stop, err)
		}
	}
}

// dense is a target that does not know where its data is.
type dense struct{ size int64 }

func (d dense) Size() int64 { return d.size }
func (d dense) AppendSegments(dst []layers.Segment, _, length int64) ([]layers.Segment, error) {
	return appendZeros(dst, length), nil
}

func TestDataRunsOfDenseTarget(t *testing.T) {
	if runs := collectRuns(t, dense{100}, 10); !slices.Equal(runs, []Run{{10, 90}}) {
		t.Errorf("runs %v", runs)
	}
	if runs := collectRuns(t, dense{100}, 100); runs != nil {
		t.Errorf("runs %v at the end", runs)
	}
	if runs := collectRuns(t, dense{0}, 0); runs != nil {
		t.Errorf("runs %v of nothing", runs)
	}
}

type readerAt struct{ t Target }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return ReadAt(r.t, p, off) }

func TestReadAt(t *testing.T) {
	d := randomDisk(100*kiB, 1, 2000, 5000)
	for _, spec := range []string{"raw", "qcow2,cluster_size=512"} {
		target := build(t, d, spec)
		r := io.NewSectionReader(readerAt{target}, 0, target.Size())
		if err := iotest.TestReader(r, read(t, target, 0, target.Size())); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
	target := build(t, d, "raw")
	for _, c := range []struct {
		off  int64
		n    int
		want int
		err  error
	}{
		{0, 0, 0, nil},
		{d.size, 0, 0, nil},
		{d.size, 1, 0, io.EOF},
		{d.size + 5, 1, 0, io.EOF},
		{d.size - 1, 1, 1, nil},
		{d.size - 1, 2, 1, io.EOF},
	} {
		if n, err := ReadAt(target, make([]byte, c.n), c.off); n != c.want || err != c.err {
			t.Errorf("read of %d at %d = %d, %v, want %d, %v", c.n, c.off, n, err, c.want, c.err)
		}
	}
	if _, err := ReadAt(target, make([]byte, 1), -1); err == nil {
		t.Error("a negative offset has no error")
	}
}

func TestConcurrentReads(t *testing.T) {
	d := randomDisk(2*miB, 1, 20000, 50000)
	target := build(t, d, "qcow2,cluster_size=4k")
	whole := read(t, target, 0, target.Size())
	var wg sync.WaitGroup
	for i := range int64(4) {
		wg.Go(func() {
			for off := i * 100; off < target.Size(); off += 10007 {
				p := make([]byte, min(9000, target.Size()-off))
				if _, err := ReadAt(target, p, off); err != nil || !bytes.Equal(p, whole[off:off+int64(len(p))]) {
					t.Errorf("read at %d: %v", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

var errBroken = errors.New("broken")

// broken is a disk whose map or whose data can't be read from an offset on.
type broken struct {
	*disk
	mapEnd, dataEnd int64
}

func (b broken) Extents(off, length int64) iter.Seq2[layers.Extent, error] {
	return func(yield func(layers.Extent, error) bool) {
		for e := range b.disk.Extents(off, min(length, b.mapEnd-off)) {
			if !yield(e, nil) {
				return
			}
		}
		if off+length > b.mapEnd {
			yield(layers.Extent{}, errBroken)
		}
	}
}

func (b broken) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if off+length > b.dataEnd {
		return nil, errBroken
	}
	return b.disk.AppendSegments(dst, off, length)
}

func TestSourceErrors(t *testing.T) {
	d := newDisk(1*miB, Run{0, 1 * miB})
	if _, err := New(broken{d, 500 * kiB, 1 * miB}, Spec{Format: "qcow2"}); !errors.Is(err, errBroken) {
		t.Errorf("a broken map gives %v", err)
	}
	if _, err := Allocated(build(t, broken{d, 500 * kiB, 1 * miB}, "raw")); !errors.Is(err, errBroken) {
		t.Errorf("a broken map gives %v", err)
	}
	// A map that breaks after it was walked once, as when a layer goes away.
	late := broken{d, 1 * miB, 1 * miB}
	target := build(t, &late, "qcow2")
	late.mapEnd = 500 * kiB
	if _, err := Allocated(target); !errors.Is(err, errBroken) {
		t.Errorf("a map that breaks later gives %v", err)
	}
	dst := []layers.Segment{{Length: 5}}
	for _, spec := range []string{"raw", "qcow2"} {
		target := build(t, broken{d, 1 * miB, 500 * kiB}, spec)
		got, err := target.AppendSegments(dst, 0, target.Size())
		if !errors.Is(err, errBroken) || len(got) != 1 {
			t.Errorf("%s: segments %v, error %v", spec, got, err)
		}
		if _, err := ReadAt(target, make([]byte, 100), target.Size()-100); !errors.Is(err, errBroken) {
			t.Errorf("%s: ReadAt gives %v", spec, err)
		}
	}
}

// inFile is a disk whose data lies in one file in the disk's order, without
// gaps, as in a qcow2 that was written once.
type inFile struct {
	*disk
	file     *volume.File
	requests *[]Run
}

func (f inFile) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	*f.requests = append(*f.requests, Run{off, length})
	var at int64
	for _, e := range f.extents {
		start, stop := max(off, e.Offset), min(off+length, e.Offset+e.Length)
		if start < stop {
			s := layers.Segment{Length: stop - start, Origin: layers.Zeros}
			if holdsData(e) {
				s.Origin, s.File, s.Offset = layers.InFile, f.file, at+start-e.Offset
			}
			dst = append(dst, s)
		}
		if holdsData(e) {
			at += e.Length
		}
	}
	return dst, nil
}

func TestSegmentsAreFew(t *testing.T) {
	var requests []Run
	d := inFile{newDisk(100*miB, Run{1 * miB, 2 * miB}, Run{10 * miB, 1 * miB}, Run{99 * miB, 64 * kiB}), new(volume.File), &requests}
	target := build(t, d, "qcow2").(*qcow2)
	if len(requests) > 0 {
		t.Errorf("the layout asked for data: %v", requests)
	}
	// What was there before is left alone, even where it would join.
	dst := []layers.Segment{{Length: 10, Origin: layers.InFile, File: d.file, Offset: -10}}
	got, err := target.AppendSegments(dst, target.data, target.size-target.data)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Length != 10 || got[1].Length != 3*miB+64*kiB || got[1].Offset != 0 || got[1].Origin != layers.InFile {
		t.Errorf("segments %+v", got)
	}
	if want := []Run{{1 * miB, 2 * miB}, {10 * miB, 1 * miB}, {99 * miB, 64 * kiB}}; !slices.Equal(requests, want) {
		t.Errorf("requests %v, want %v", requests, want)
	}
}

func TestJoin(t *testing.T) {
	a, b := new(volume.File), new(volume.File)
	file := func(f *volume.File, off, length int64) layers.Segment {
		return layers.Segment{Length: length, Origin: layers.InFile, File: f, Offset: off}
	}
	zeros := func(n int64) layers.Segment { return layers.Segment{Length: n} }
	literal := layers.Segment{Length: 1, Origin: layers.Literal, Bytes: []byte{1}}
	in := []layers.Segment{
		zeros(1), zeros(2), // not ours
		zeros(3), zeros(4), file(a, 0, 10), file(a, 10, 10), file(b, 20, 1), file(b, 22, 1), literal, literal, zeros(1), zeros(1), zeros(1),
	}
	want := []layers.Segment{
		zeros(1), zeros(2),
		zeros(7), file(a, 0, 20), file(b, 20, 1), file(b, 22, 1), literal, literal, zeros(3),
	}
	equal := func(a, b layers.Segment) bool {
		return a.Length == b.Length && a.Origin == b.Origin && a.File == b.File && a.Offset == b.Offset && bytes.Equal(a.Bytes, b.Bytes)
	}
	if got := join(in, 2); !slices.EqualFunc(got, want, equal) {
		t.Errorf("joined %+v", got)
	}
	if got := join(nil, 0); got != nil {
		t.Errorf("joined nothing to %+v", got)
	}
}
