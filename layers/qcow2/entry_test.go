package qcow2

import (
	"errors"
	"testing"

	"flatimg/layers/volume"
)

func TestDecode(t *testing.T) {
	const none = volume.NoHost
	plain := geometry{clusterBits: 16}
	v2 := geometry{clusterBits: 16, version2: true}
	ext := geometry{clusterBits: 16, extendedL2: true}
	data := geometry{clusterBits: 16, dataFile: true}
	for _, c := range []struct {
		name   string
		g      geometry
		entry  uint64
		bitmap uint64
		guest  int64
		want   cluster
		err    error
	}{
		{name: "empty", g: plain, want: cluster{kind: volume.Hole, host: none}},
		{name: "copied bit alone", g: plain, entry: flagCopied, want: cluster{kind: volume.Hole, host: none}},
		{name: "data", g: plain, entry: flagCopied | 0x50000, want: cluster{kind: volume.Data, host: 0x50000}},
		{name: "data at the highest offset", g: plain, entry: 0x00ff_ffff_ffff_0000, want: cluster{kind: volume.Data, host: 0x00ff_ffff_ffff_0000}},
		{name: "zero", g: plain, entry: 1, want: cluster{kind: volume.Zero, host: none}},
		{name: "zero with space", g: plain, entry: 0x50001, want: cluster{kind: volume.Zero, host: 0x50000}},
		{name: "zero in version 2", g: v2, entry: 1, err: errZeroInV2},
		{name: "unaligned", g: plain, entry: 0x50200, err: errUnaligned},
		{name: "compressed", g: plain, entry: flagCompressed | 0x12345, want: cluster{kind: volume.Compressed, host: 0x12345, stored: 512 - 0x145}},
		{name: "compressed, three sectors", g: plain, entry: flagCompressed | 2<<54 | 0x200, want: cluster{kind: volume.Compressed, host: 0x200, stored: 3 * 512}},
		{name: "compressed ignores the zero bit", g: plain, entry: flagCompressed | 1, want: cluster{kind: volume.Compressed, host: 1, stored: 511}},
		{name: "compressed ignores the bitmap", g: ext, entry: flagCompressed | 0x200, bitmap: ^uint64(0), want: cluster{kind: volume.Compressed, host: 0x200, stored: 512}},
		{name: "compressed with data file", g: data, entry: flagCompressed | 0x200, err: errCompressed},
		{name: "data file at offset 0", g: data, entry: flagCopied, want: cluster{kind: volume.Data, host: 0}},
		{name: "data file, zero at offset 0", g: data, entry: flagCopied | 1, want: cluster{kind: volume.Zero, host: none}},
		{name: "data file, unallocated", g: data, entry: 0, want: cluster{kind: volume.Hole, host: none}},
		{name: "data file, guest offset", g: data, entry: 0x50000, guest: 0x50000, want: cluster{kind: volume.Data, host: 0x50000}},
		{name: "data file, other offset", g: data, entry: 0x60000, guest: 0x50000, err: errDataMismatch},
		{name: "extended, nothing", g: ext, entry: 0x50000, want: cluster{kind: volume.Hole, host: 0x50000}},
		{name: "extended, all data", g: ext, entry: 0x50000, bitmap: 0xffff_ffff, want: cluster{kind: volume.Data, host: 0x50000}},
		{name: "extended, all zero", g: ext, bitmap: 0xffff_ffff << 32, want: cluster{kind: volume.Zero, host: none}},
		{name: "extended, the zero bit is reserved", g: ext, entry: 0x50001, bitmap: 0xffff_ffff, want: cluster{kind: volume.Data, host: 0x50000}},
		{name: "extended, mixed", g: ext, entry: 0x50000, bitmap: 2<<32 | 1, want: cluster{kind: volume.Hole, host: 0x50000, allocated: 1, zero: 2}},
		{name: "extended, both", g: ext, entry: 0x50000, bitmap: 1<<32 | 1, err: errBothBits},
		{name: "extended, no host", g: ext, bitmap: 1, err: errNoHost},
	} {
		got, err := c.g.decode(c.entry, c.bitmap, c.guest)
		if !errors.Is(err, c.err) || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, err, c.want, c.err)
		}
	}
}

// TestDecodeCompressedBits checks the split of the descriptor at the smallest
// and the largest cluster size.
func TestDecodeCompressedBits(t *testing.T) {
	for _, c := range []struct {
		bits         uint
		entry        uint64
		host, stored int64
	}{
		{9, 1<<61 - 1, 1<<61 - 1, 1},
		{9, 1 << 61, 0, 1024},
		{21, 1<<49 - 512, 1<<49 - 512, 512},
		{21, (1<<13 - 1) << 49, 0, 512 << 13},
	} {
		host, stored := (geometry{clusterBits: c.bits}).decodeCompressed(flagCompressed | flagCopied | c.entry)
		if host != c.host || stored != c.stored {
			t.Errorf("cluster bits %d, %#x: %#x, %d; want %#x, %d", c.bits, c.entry, host, stored, c.host, c.stored)
		}
	}
}

func TestSubRun(t *testing.T) {
	c := cluster{kind: volume.Hole, allocated: 0b0110, zero: 1 << 31}
	for _, want := range []struct {
		from, n int
		kind    volume.Kind
	}{{0, 1, volume.Hole}, {1, 2, volume.Data}, {2, 1, volume.Data}, {3, 28, volume.Hole}, {31, 1, volume.Zero}} {
		if kind, n := c.subRun(want.from); kind != want.kind || n != want.n {
			t.Errorf("subcluster %d: %v, %d; want %v, %d", want.from, kind, n, want.kind, want.n)
		}
	}
}
