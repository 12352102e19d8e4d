package convert

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// checkBitmap compares every answer of b with that of a slice of bools.
func checkBitmap(t *testing.T, b *bitmap, want []bool) {
	t.Helper()
	n := int64(len(want))
	nextOne := make([]int64, n+1)
	nextZero := make([]int64, n+1)
	nextOne[n], nextZero[n] = n, n
	for i := n - 1; i >= 0; i-- {
		nextOne[i], nextZero[i] = nextOne[i+1], nextZero[i+1]
		if want[i] {
			nextOne[i] = i
		} else {
			nextZero[i] = i
		}
	}
	var ones int64
	for i := range n {
		if got := b.rank(i); got != ones {
			t.Fatalf("rank(%d) = %d, want %d", i, got, ones)
		}
		if got := b.has(i); got != want[i] {
			t.Fatalf("has(%d) = %v", i, got)
		}
		if want[i] {
			if got := b.selectOne(ones); got != i {
				t.Fatalf("selectOne(%d) = %d, want %d", ones, got, i)
			}
			ones++
		}
		if got := b.nextOne(i); got != nextOne[i] {
			t.Fatalf("nextOne(%d) = %d, want %d", i, got, nextOne[i])
		}
		limits := []int64{min(n, i+1), min(n, i+100)}
		if i%1009 == 0 {
			limits = append(limits, n) // may take a scan of all the rest
		}
		for _, limit := range limits {
			if got := b.nextZero(i, limit); got != min(limit, nextZero[i]) {
				t.Fatalf("nextZero(%d, %d) = %d, want %d", i, limit, got, min(limit, nextZero[i]))
			}
		}
	}
	if b.rank(n) != ones || b.count() != ones || b.nextOne(n) != n {
		t.Fatalf("rank(n) = %d, count = %d, nextOne(n) = %d of %d ones in %d", b.rank(n), b.count(), b.nextOne(n), ones, n)
	}
	for _, shift := range []uint{0, 1, 6, 13} {
		g := b.groups(shift)
		if g.n != shiftUp(n, shift) {
			t.Fatalf("groups(%d) has %d bits", shift, g.n)
		}
		for i := range g.n {
			any := nextOne[i<<shift] < min(n, (i+1)<<shift)
			if g.has(i) != any {
				t.Fatalf("groups(%d) has(%d) = %v", shift, i, !any)
			}
		}
	}
}

func fill(want []bool, b *bitmap, from, to int64) {
	b.set(from, to)
	for i := from; i < to; i++ {
		want[i] = true
	}
}

func TestBitmap(t *testing.T) {
	for _, n := range []int64{0, 1, 63, 64, 65, 511, 512, 513, pageBits - 1, pageBits, pageBits + 1, 3*pageBits + 77} {
		for _, density := range []int64{0, 1, 10, 1000, 100000} {
			t.Run(fmt.Sprintf("n=%d/density=%d", n, density), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(n), uint64(density)))
				b, want := newBitmap(n), make([]bool, n)
				for range density {
					if n > 0 {
						from := r.Int64N(n)
						fill(want, b, from, min(n, from+r.Int64N(3)))
					}
				}
				b.index()
				checkBitmap(t, b, want)
			})
		}
		t.Run(fmt.Sprintf("n=%d/full", n), func(t *testing.T) {
			b, want := newBitmap(n), make([]bool, n)
			fill(want, b, 0, n)
			b.index()
			checkBitmap(t, b, want)
		})
	}
}

func TestBitmapPages(t *testing.T) {
	b := newBitmap(4 * pageBits)
	b.set(0, pageBits+1)            // page 0 at once, one bit of page 1
	b.set(2*pageBits+5, 3*pageBits) // page 2 in two parts
	if b.owned != 2 {
		t.Errorf("%d pages owned, want 2", b.owned)
	}
	b.set(2*pageBits, 2*pageBits+5)
	b.set(2, 5)                   // of a full page
	b.set(pageBits, 2*pageBits)   // a page that had one bit
	b.set(3*pageBits, 3*pageBits) // nothing
	if b.index(); b.owned != 0 || b.count() != 3*pageBits {
		t.Errorf("%d pages owned, %d ones, want 0, %d", b.owned, b.count(), 3*pageBits)
	}
	for _, p := range emptyPage.words {
		if p != 0 {
			t.Fatal("the empty page was written to")
		}
	}
}

// FuzzBitmap takes pairs of bytes as gaps and runs.
func FuzzBitmap(f *testing.F) {
	f.Add(uint16(100), []byte{0, 1, 2, 3, 63, 64, 65, 255})
	f.Add(uint16(65535), []byte{255, 255, 0, 255, 1, 1})
	f.Fuzz(func(t *testing.T, size uint16, runs []byte) {
		n := int64(size) * 2
		b, want := newBitmap(n), make([]bool, n)
		var at int64
		for i := 0; i+1 < len(runs); i += 2 {
			// Squares, so that some are longer than a page.
			at += int64(runs[i]) * int64(runs[i]) / 16
			end := at + int64(runs[i+1])*int64(runs[i+1])/2
			if at >= n {
				break
			}
			fill(want, b, at, min(n, end))
			at = min(n, end)
		}
		b.index()
		checkBitmap(t, b, want)
	})
}

func BenchmarkBitmap(b *testing.B) {
	const n = 1 << 24 // 1 TiB in clusters of 64 KiB
	m := newBitmap(n)
	for i := int64(0); i < n; i += 3 {
		m.set(i, i+1)
	}
	m.index()
	r := rand.New(rand.NewPCG(1, 1))
	b.Run("rank", func(b *testing.B) {
		for b.Loop() {
			m.rank(r.Int64N(n))
		}
	})
	b.Run("select", func(b *testing.B) {
		for b.Loop() {
			m.selectOne(r.Int64N(m.count()))
		}
	})
}
