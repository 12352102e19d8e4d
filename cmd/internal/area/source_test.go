package area

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"flatimg/convert"
	"flatimg/layers"
)

// TestViewNextData asks a view in any order what convert.NextData says.
func TestViewNextData(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		target := &fakeTarget{}
		for range 1 + r.IntN(10) {
			target.segments = append(target.segments, zeroSegment(int64(r.IntN(20))), literal(randomBytes(1, r.IntN(20))))
		}
		v := &view{Target: target}
		defer v.close()
		for range 100 {
			off := r.Int64N(target.Size() + 3)
			wantStart, wantEnd, _ := convert.NextData(target, off)
			start, end, err := v.NextData(off)
			if err != nil || start != wantStart || end != wantEnd {
				t.Fatalf("%v at %d: [%d, %d), %v; want [%d, %d)", target.segments, off, start, end, err, wantStart, wantEnd)
			}
		}
	}
}

// countingTarget counts how often its runs are walked from the beginning.
type countingTarget struct {
	*fakeTarget
	walks int
	err   error // after the first run
}

func (t *countingTarget) DataRuns(off int64) iter.Seq2[convert.Run, error] {
	t.walks++
	return func(yield func(convert.Run, error) bool) {
		for r, err := range t.fakeTarget.DataRuns(off) {
			if !yield(r, err) {
				return
			}
			if t.err != nil {
				yield(convert.Run{}, t.err)
				return
			}
		}
	}
}

func TestViewWalksOnce(t *testing.T) {
	target := &countingTarget{fakeTarget: &fakeTarget{}}
	for range 1000 {
		target.segments = append(target.segments, literal([]byte("data")), zeroSegment(4))
	}
	v := &view{Target: target}
	defer v.close()
	runs := 0
	if err := eachRun(v, func(start, end int64) error { runs++; return nil }); err != nil || runs != 1000 || target.walks != 1 {
		t.Errorf("%d runs, %d walks, %v", runs, target.walks, err)
	}
}

// TestViewFaults: an error is the source's, and comes again.
func TestViewFaults(t *testing.T) {
	broken := errors.New("broken")
	target := &countingTarget{fakeTarget: &fakeTarget{segments: []layers.Segment{literal([]byte("a")), zeroSegment(5), literal([]byte("b"))}}, err: broken}
	v := &view{Target: target}
	for range 3 {
		if _, _, err := v.NextData(1); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	}
	if !errors.Is(v.fault(), broken) {
		t.Errorf("fault %v", v.fault())
	}
	v.close()
	v.close()
}

// TestFileRanges: the ranges are what the view reads as.
func TestFileRanges(t *testing.T) {
	target := mixedTarget(t, t.TempDir())
	want := readTarget(t, target)
	v := &view{Target: target}
	defer v.close()
	for off := int64(0); off < target.Size(); off += 100_000 {
		length := min(150_000, target.Size()-off)
		var got []byte
		err := v.FileRanges(off, length, func(f *os.File, at, length int64) error {
			part := make([]byte, length)
			if f == nil {
				copy(part, want[off+int64(len(got)):])
			} else if _, err := f.ReadAt(part, at); err != nil {
				return err
			}
			got = append(got, part...)
			return nil
		})
		if err != nil || !bytes.Equal(got, want[off:off+length]) {
			t.Fatalf("[%d, +%d): %d bytes, %v", off, length, len(got), err)
		}
	}
}

func TestLimiter(t *testing.T) {
	src := newMemorySource(3<<20, [2]int64{0, 3 << 20})
	if _, ok := limit(t.Context(), src, newLimiter(0)).(memorySource); !ok {
		t.Error("no limit is one")
	}
	// The first MiB is free, the others take their time.
	const rate = 16 << 20
	limited := limit(t.Context(), src, newLimiter(rate))
	begin := time.Now()
	got := make([]byte, src.Size())
	if n, err := limited.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, src.bytes()) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if took, least := time.Since(begin), time.Second*(2<<20)/rate; took < least*9/10 {
		t.Errorf("took %v, at least %v", took, least)
	}
	if n, err := limited.ReadAt(got[:10], src.Size()-4); n != 4 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	slow := limit(ctx, src, newLimiter(1))
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := slow.ReadAt(got, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}
