package convert

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"flatimg/layers"
)

// parsedImage is what a strict reader of a format makes of a target. It knows
// nothing of the layout: it follows the tables as the specification says.
type parsedImage struct {
	disk   int64 // virtual size in bytes
	block  int64 // bytes
	blocks int64
	// host returns the offset in the file of the data of a block, -1 when it
	// has no place there. It fails the test when the table is wrong there.
	host func(block int64) int64
	// all says that every block has a place.
	all bool
	// start and end of what blocks may take in the file.
	start, end int64
	id         uuid
}

// checkBlock compares a block with that of the disk and returns its place.
func (p *parsedImage) checkBlock(t testing.TB, d *disk, target Target, block int64) int64 {
	t.Helper()
	host := p.host(block)
	// A piece at a time, since blocks can be as large as 256 MiB; pieces
	// without data must be known as zeros.
	const step = miB
	data := false
	for at := int64(0); at < p.block; at += step {
		n := min(step, p.block-at)
		holds := false
		for e := range d.Extents(block*p.block+at, n) {
			holds = holds || holdsData(e)
		}
		data = data || holds
		switch {
		case host < 0 && holds:
			t.Fatalf("block %d holds data, but has no place", block)
		case host < 0:
		case holds:
			if !bytes.Equal(read(t, target, host+at, n), d.read(block*p.block+at, n)) {
				t.Fatalf("block %d differs in [%#x, +%#x) (at %#x in the file)", block, at, n, host)
			}
		default:
			segments, err := target.AppendSegments(nil, host+at, n)
			if err != nil || len(segments) != 1 || segments[0].Origin != layers.Zeros {
				t.Fatalf("block %d has %v, %v in [%#x, +%#x), where the disk has no data", block, segments, err, at, n)
			}
		}
	}
	switch {
	case host >= 0 && !data && !p.all:
		t.Fatalf("block %d holds no data, but is stored", block)
	case host < 0 && p.all:
		t.Fatalf("block %d has no place", block)
	case host >= 0 && (host < p.start || host+p.block > p.end):
		t.Fatalf("block %d is at %#x, out of [%#x, %#x)", block, host, p.start, p.end)
	case host >= 0 && host%4096 != 0:
		t.Fatalf("block %d is at %#x, which can't be cloned", block, host)
	}
	return host
}

// checkAll compares all blocks and where they are.
func (p *parsedImage) checkAll(t testing.TB, d *disk, target Target) {
	t.Helper()
	next := p.start
	for block := range p.blocks {
		if host := p.checkBlock(t, d, target, block); host >= 0 {
			if host < next {
				t.Fatalf("block %d is at %#x, the one before ends at %#x", block, host, next)
			}
			next = host + p.block
		}
	}
	if next != p.end {
		t.Fatalf("blocks end at %#x, not at %#x", next, p.end)
	}
}

// checkSome compares blocks with and around data, and others at random.
func (p *parsedImage) checkSome(t testing.TB, d *disk, target Target) {
	t.Helper()
	check := func(guest int64) {
		p.checkBlock(t, d, target, min(max(0, guest)/p.block, p.blocks-1))
	}
	r := rand.New(rand.NewPCG(3, 4))
	runs := d.dataRuns()
	for i := range 20 {
		run := runs[r.IntN(len(runs))]
		if i < len(runs) {
			run = runs[i]
		}
		check(run.Offset)
		check(run.Offset + run.Length - 1)
		check(run.Offset + run.Length)
		check(run.Offset - 1)
		check(r.Int64N(d.size))
	}
	check(d.size - 1)
	check(p.disk - 1)
}
