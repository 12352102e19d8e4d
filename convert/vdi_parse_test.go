package convert

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func parseVDI(t testing.TB, target Target) *parsedImage {
	t.Helper()
	h := read(t, target, 0, 512)
	le := binary.LittleEndian
	if !bytes.HasPrefix(h, []byte("<<<")) || le.Uint32(h[64:]) != 0xbeda107f || le.Uint32(h[68:]) != 0x10001 || le.Uint32(h[72:]) != 400 {
		t.Fatalf("pre-header % x", h[:76])
	}
	kind, mapAt, dataAt := le.Uint32(h[76:]), int64(le.Uint32(h[340:])), int64(le.Uint32(h[344:]))
	blocks, allocated := int64(le.Uint32(h[384:])), int64(le.Uint32(h[388:]))
	p := &parsedImage{
		disk:   int64(le.Uint64(h[368:])),
		block:  int64(le.Uint32(h[376:])),
		blocks: blocks,
		all:    kind == 2,
		start:  dataAt,
		end:    target.Size(),
		id:     uuid(uuid(h[392:408]).guid()),
	}
	if kind != 1 && kind != 2 || le.Uint32(h[360:]) != 512 || p.block != 1<<20 || p.disk%512 != 0 {
		t.Fatalf("type %d, sectors of %d, blocks of %d, disk of %d bytes", kind, le.Uint32(h[360:]), p.block, p.disk)
	}
	if mapAt%512 != 0 || mapAt < 472 || mapAt+4*blocks > dataAt || dataAt%p.block != 0 || p.disk > blocks*p.block || p.disk <= (blocks-1)*p.block {
		t.Fatalf("map of %d at %#x, data at %#x, disk of %#x bytes", blocks, mapAt, dataAt, p.disk)
	}
	if target.Size() != dataAt+allocated*p.block || p.all && allocated != blocks {
		t.Fatalf("%d of %d blocks, file of %#x bytes", allocated, blocks, target.Size())
	}
	for i, b := range h {
		zero := i >= 80 && i < 340 || i >= 348 && i < 360 || i >= 364 && i < 368 || i >= 380 && i < 384 || i >= 424
		if zero && b != 0 {
			t.Fatalf("byte %d of the header is %#x", i, b)
		}
	}
	p.host = func(block int64) int64 {
		switch place := le.Uint32(read(t, target, mapAt+4*block, 4)); {
		case place == 0xffffffff:
			return -1
		case int64(place) >= allocated:
			t.Fatalf("block %d is number %d of %d", block, place, allocated)
			return -1
		default:
			return dataAt + int64(place)*p.block
		}
	}
	return p
}
