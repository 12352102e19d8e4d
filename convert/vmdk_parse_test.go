package convert

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"strconv"
	"testing"
)

// parsedVMDKHeader is a SparseExtentHeader with its descriptor.
type parsedVMDKHeader struct {
	version, flags                 uint32
	disk                           int64 // bytes
	redundant, directory, overhead int64
	descriptor                     string
}

func parseVMDKHeader(t testing.TB, h, descriptor []byte) parsedVMDKHeader {
	t.Helper()
	le := binary.LittleEndian
	if string(h[:4]) != "KDMV" || !bytes.Equal(h[72:77], []byte("\x00\n \r\n")) || le.Uint64(h[20:]) != 128 || le.Uint64(h[28:]) != 1 || le.Uint64(h[36:]) != 20 || le.Uint32(h[44:]) != 512 {
		t.Fatalf("header % x", h[:80])
	}
	if i := bytes.IndexFunc(h[79:512], func(r rune) bool { return r != 0 }); i >= 0 {
		t.Fatalf("byte %d of the header is %#x", 79+i, h[79+i])
	}
	text, padding, _ := bytes.Cut(descriptor, []byte{0})
	if len(bytes.Trim(padding, "\x00")) > 0 {
		t.Fatalf("descriptor has text behind its end: %q", padding)
	}
	return parsedVMDKHeader{
		version: le.Uint32(h[4:]), flags: le.Uint32(h[8:]), disk: int64(le.Uint64(h[12:])) * 512,
		redundant: int64(le.Uint64(h[48:])) * 512, directory: int64(le.Uint64(h[56:])) * 512, overhead: int64(le.Uint64(h[64:])) * 512,
		descriptor: string(text),
	}
}

// field returns what a descriptor says for a key.
func (h parsedVMDKHeader) field(t testing.TB, key string) string {
	t.Helper()
	return vmdkField(t, h.descriptor, key)
}

func vmdkField(t testing.TB, descriptor, key string) string {
	t.Helper()
	all := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(key)+` ?= ?"?([^"\n]*)"?$`).FindAllStringSubmatch(descriptor, -1)
	if len(all) != 1 {
		t.Fatalf("%d times %s in\n%s", len(all), key, descriptor)
	}
	return all[0][1]
}

// parseVMDK reads a monolithicSparse VMDK.
func parseVMDK(t testing.TB, target Target) *parsedImage {
	t.Helper()
	h := parseVMDKHeader(t, read(t, target, 0, 512), read(t, target, 512, 20*512))
	grains := (h.disk + 64*kiB - 1) / (64 * kiB)
	tables := (grains + 511) / 512
	behind := func(directory int64) int64 { return directory + (tables*4+511)/512*512 + tables*2048 }
	if h.version != 1 || h.flags != 3 || h.redundant < 21*512 || h.directory < behind(h.redundant) || h.overhead < behind(h.directory) || h.overhead%(64*kiB) != 0 {
		t.Fatalf("header %+v", h)
	}
	sectors := strconv.FormatInt(h.disk/512, 10)
	if extent := regexp.MustCompile(`(?m)^RW (\d+) SPARSE "disk.vmdk"$`).FindStringSubmatch(h.descriptor); extent == nil || extent[1] != sectors {
		t.Fatalf("extent %q of %s sectors in\n%s", extent, sectors, h.descriptor)
	}
	if kind, parent := h.field(t, "createType"), h.field(t, "parentCID"); kind != "monolithicSparse" || parent != "ffffffff" {
		t.Fatalf("createType %q, parentCID %s", kind, parent)
	}
	entry := func(off int64) int64 { return int64(binary.LittleEndian.Uint32(read(t, target, off, 4))) * 512 }
	return &parsedImage{
		disk: h.disk, block: 64 * kiB, blocks: grains, start: h.overhead, end: target.Size(), id: mustUUID(h.field(t, "ddb.uuid.image")),
		host: func(block int64) int64 {
			var places [2]int64
			for i, directory := range []int64{h.redundant, h.directory} {
				table := entry(directory + block/512*4)
				// A reader may take the tables to follow their directory.
				if want := directory + (tables*4+511)/512*512 + block/512*2048; table != want {
					t.Fatalf("grain table %d is at %#x, want %#x", block/512, table, want)
				}
				places[i] = entry(table + block%512*4)
			}
			switch {
			case places[0] != places[1]:
				t.Fatalf("grain %d is at %#x, by the redundant table at %#x", block, places[1], places[0])
			case places[0] == 0:
				return -1
			}
			return places[0]
		},
	}
}

func mustUUID(text string) uuid {
	u, ok := parseUUID(text)
	if !ok {
		panic("no UUID: " + text)
	}
	return u
}
