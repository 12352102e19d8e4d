package convert

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// checkVHDXSum checks a CRC-32C at offset 4, with zeros in its place.
func checkVHDXSum(t testing.TB, b []byte, signature string) {
	t.Helper()
	c := bytes.Clone(b)
	clear(c[4:8])
	sum := crc32.Checksum(c, crc32.MakeTable(crc32.Castagnoli))
	if got := binary.LittleEndian.Uint32(b[4:]); got != sum || string(b[:4]) != signature {
		t.Fatalf("%q for %q, checksum %#x, not %#x", b[:4], signature, got, sum)
	}
}

// vhdxParams is the GUID of the file parameters as it is stored.
const vhdxParams = "\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b"

func parseVHDX(t testing.TB, target Target) *parsedImage {
	t.Helper()
	le := binary.LittleEndian
	size := target.Size()
	if id := read(t, target, 0, 8); string(id) != "vhdxfile" || size%miB != 0 {
		t.Fatalf("signature %q, file of %#x bytes", id, size)
	}
	type region struct{ at, length int64 }
	used := []region{{0, miB}}
	use := func(r region, what string) {
		for _, other := range used {
			if r.at%miB != 0 || r.length%miB != 0 || r.at+r.length > size || r.at < other.at+other.length && other.at < r.at+r.length {
				t.Fatalf("%s is at [%#x, +%#x), file of %#x bytes", what, r.at, r.length, size)
			}
		}
		used = append(used, r)
	}
	one, two := read(t, target, 64*kiB, 4*kiB), read(t, target, 128*kiB, 4*kiB)
	for _, h := range [][]byte{one, two} {
		checkVHDXSum(t, h, "head")
		if !bytes.Equal(h[48:64], make([]byte, 16)) || le.Uint16(h[64:]) != 0 || le.Uint16(h[66:]) != 1 {
			t.Fatalf("log GUID % x, log version %d, version %d", h[48:64], le.Uint16(h[64:]), le.Uint16(h[66:]))
		}
		if bytes.Equal(h[16:32], h[32:48]) {
			t.Fatalf("GUIDs % x", h[16:48])
		}
	}
	if le.Uint64(one[8:])+1 != le.Uint64(two[8:]) || !bytes.Equal(one[16:], two[16:]) {
		t.Fatal("the headers do not belong together")
	}
	use(region{int64(le.Uint64(one[72:])), int64(le.Uint32(one[68:]))}, "the log")
	table := read(t, target, 192*kiB, 64*kiB)
	checkVHDXSum(t, table, "regi")
	if !bytes.Equal(table, read(t, target, 256*kiB, 64*kiB)) || le.Uint32(table[8:]) != 2 {
		t.Fatalf("the region tables differ, or have %d entries", le.Uint32(table[8:]))
	}
	regions := make(map[string]region)
	for i := 16; i < 80; i += 32 {
		r := region{int64(le.Uint64(table[i+16:])), int64(le.Uint32(table[i+24:]))}
		use(r, "a region")
		if le.Uint32(table[i+28:]) != 1 {
			t.Fatalf("flags %#x of a region", le.Uint32(table[i+28:]))
		}
		regions[string(table[i:i+16])] = r
	}
	bat := regions["\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08"]
	metadata := regions["\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e"]
	if bat.length == 0 || metadata.length == 0 {
		t.Fatal("a region is missing")
	}
	m := read(t, target, metadata.at, 64*kiB)
	if string(m[:8]) != "metadata" || le.Uint16(m[10:]) != 5 {
		t.Fatalf("metadata %q with %d items", m[:8], le.Uint16(m[10:]))
	}
	items := make(map[string][]byte)
	for i := 32; i < 192; i += 32 {
		at, length, flags := int64(le.Uint32(m[i+16:])), int64(le.Uint32(m[i+20:])), le.Uint32(m[i+24:])
		name := string(m[i : i+16])
		want := uint32(6)
		if name == vhdxParams {
			want = 4
		}
		if at < 64*kiB || at+length > metadata.length || flags != want {
			t.Fatalf("item % x at %#x, %d bytes, flags %d", name, at, length, flags)
		}
		items[name] = read(t, target, metadata.at+at, length)
	}
	params, diskSize := items[vhdxParams], items["\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8"]
	logical := items["\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f"]
	physical := items["\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56"]
	id := items["\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46"]
	if len(params) != 8 || len(diskSize) != 8 || len(logical) != 4 || len(physical) != 4 || len(id) != 16 {
		t.Fatalf("items %x", items)
	}
	p := &parsedImage{
		disk:  int64(le.Uint64(diskSize)),
		block: int64(le.Uint32(params)),
		all:   params[4] == 1,
		start: bat.at + bat.length,
		end:   size,
		id:    uuid(uuid(id).guid()),
	}
	if le.Uint32(logical) != 512 || le.Uint32(physical) != 512 || params[4] > 1 || p.disk%miB != 0 || p.disk == 0 || p.block < miB || p.block > 256*miB || p.block&(p.block-1) != 0 {
		t.Fatalf("items %x", items)
	}
	p.blocks = (p.disk + p.block - 1) / p.block
	chunk := 512 << 23 / p.block
	if entries := p.blocks + (p.blocks-1)/chunk; entries*8 > bat.length {
		t.Fatalf("%d entries in a BAT of %#x bytes", entries, bat.length)
	}
	entry := func(i int64) uint64 { return le.Uint64(read(t, target, bat.at+8*i, 8)) }
	for i := int64(1); i < 4 && i*chunk < p.blocks; i++ {
		if e := entry(i*(chunk+1) - 1); e != 0 {
			t.Fatalf("entry %#x for sector bitmap block %d", e, i)
		}
	}
	p.host = func(block int64) int64 {
		switch e := entry(block + block/chunk); {
		case e == 0 || e == 2:
			return -1
		case e&(miB-1) != 6:
			t.Fatalf("entry %#x of block %d", e, block)
			return -1
		default:
			return int64(e &^ (miB - 1))
		}
	}
	return p
}
