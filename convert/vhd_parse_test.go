package convert

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// checkVHDSum checks a checksum, with zeros in its place.
func checkVHDSum(t testing.TB, b []byte, at int, what string) {
	t.Helper()
	var sum uint32
	for i, c := range b {
		if i < at || i >= at+4 {
			sum += uint32(c)
		}
	}
	if got := binary.BigEndian.Uint32(b[at:]); got != ^sum {
		t.Fatalf("checksum of the %s is %#x, not %#x", what, got, ^sum)
	}
}

func parseVHD(t testing.TB, target Target) *parsedImage {
	t.Helper()
	be := binary.BigEndian
	size := target.Size()
	f := read(t, target, size-512, 512)
	checkVHDSum(t, f, 64, "footer")
	if string(f[:8]) != "conectix" || be.Uint32(f[8:]) != 2 || be.Uint32(f[12:]) != 0x10000 || be.Uint32(f[24:]) != 0 || string(f[28:32]) != "win " {
		t.Fatalf("footer % x", f[:32])
	}
	p := &parsedImage{disk: int64(be.Uint64(f[48:])), id: uuid(f[68:84])}
	if int64(be.Uint64(f[40:])) != p.disk || p.disk%512 != 0 || !bytes.Equal(f[84:], make([]byte, 512-84)) {
		t.Fatalf("footer % x", f)
	}
	if chs := int64(be.Uint16(f[56:])) * int64(f[58]) * int64(f[59]); chs > p.disk/512 {
		t.Fatalf("geometry of %d sectors, disk of %d", chs, p.disk/512)
	}
	switch kind := be.Uint32(f[60:]); {
	case kind == 2 && be.Uint64(f[16:]) == 1<<64-1 && size == p.disk+512:
		// The data is one block.
		p.block, p.blocks, p.all, p.end = p.disk, 1, true, p.disk
		p.host = func(int64) int64 { return 0 }
		return p
	case kind != 3 || be.Uint64(f[16:]) != 512 || !bytes.Equal(f, read(t, target, 0, 512)):
		t.Fatalf("type %d, data offset %#x", kind, be.Uint64(f[16:]))
	}
	h := read(t, target, 512, 1024)
	checkVHDSum(t, h, 36, "dynamic disk header")
	table := int64(be.Uint64(h[16:]))
	p.block, p.blocks = int64(be.Uint32(h[32:])), int64(be.Uint32(h[28:]))
	if string(h[:8]) != "cxsparse" || be.Uint64(h[8:]) != 1<<64-1 || be.Uint32(h[24:]) != 0x10000 || !bytes.Equal(h[40:], make([]byte, 1024-40)) {
		t.Fatalf("dynamic disk header % x", h)
	}
	if p.block != 2<<20 || p.blocks != (p.disk+p.block-1)/p.block || table != 1536 {
		t.Fatalf("%d blocks of %d for %d bytes, BAT at %#x", p.blocks, p.block, p.disk, table)
	}
	bitmap := p.block / 512 / 8
	p.start = (table + 4*p.blocks + 511) &^ 511
	p.end = size - 512
	p.host = func(block int64) int64 {
		sector := be.Uint32(read(t, target, table+4*block, 4))
		if sector == 0xffffffff {
			return -1
		}
		at := int64(sector) * 512
		if at < p.start || at+bitmap+p.block > p.end {
			t.Fatalf("block %d is at %#x, out of [%#x, %#x)", block, at, p.start, p.end)
		}
		if bits := read(t, target, at, bitmap); !bytes.Equal(bits, bytes.Repeat([]byte{0xff}, int(bitmap))) {
			t.Fatalf("bitmap of block %d is % x", block, bits)
		}
		return at + bitmap
	}
	// The rest of the table's last sector is no block either.
	for _, b := range read(t, target, table+4*p.blocks, p.start-table-4*p.blocks) {
		if b != 0xff {
			t.Fatal("the BAT is not filled up with unused entries")
		}
	}
	if !hasBlocks(p) {
		// The file ends after the table, up to the alignment of blocks.
		if p.end-p.start >= 4096 {
			t.Fatalf("no blocks, but the footer is at %#x", p.end)
		}
		p.start = p.end
	}
	return p
}

// hasBlocks says whether any of the first blocks has a place.
func hasBlocks(p *parsedImage) bool {
	for i := range min(p.blocks, 4096) {
		if p.host(i) >= 0 {
			return true
		}
	}
	return p.end-p.start >= p.block
}
