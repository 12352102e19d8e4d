package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"flatimg/layers/volume"
)

// craft is a small image of clusters of 64 KiB, built byte by byte: a header in
// cluster 0, an L1 table in cluster 1, an L2 table in cluster 2, a data cluster
// in cluster 3.
type craft []byte

const craftCluster = 64 << 10

func newCraft(version uint32) craft {
	c := make(craft, 4*craftCluster)
	copy(c, "QFI\xfb")
	c.u32(4, version)
	c.u32(20, 16)             // cluster_bits
	c.u64(24, 1<<20)          // size
	c.u32(36, 1)              // l1_size
	c.u64(40, craftCluster)   // l1_table_offset
	c.u64(48, 3*craftCluster) // refcount_table_offset, never read
	c.u32(56, 1)              // refcount_table_clusters
	if version == 3 {
		c.u32(96, 4)    // refcount_order
		c.u32(100, 104) // header_length
	}
	c.u64(craftCluster, 2*craftCluster)
	c.u64(2*craftCluster, 3*craftCluster)
	copy(c[3*craftCluster:], "hello")
	return c
}

func (c craft) u32(off int, v uint32) { binary.BigEndian.PutUint32(c[off:], v) }
func (c craft) u64(off int, v uint64) { binary.BigEndian.PutUint64(c[off:], v) }

// extension writes a header extension at off and returns the offset behind it.
func (c craft) extension(off int, kind uint32, data string) int {
	c.u32(off, kind)
	c.u32(off+4, uint32(len(data)))
	copy(c[off+8:], data)
	return off + 8 + (len(data)+7)&^7
}

func (c craft) backing(off uint64, name string) {
	c.u64(8, off)
	c.u32(16, uint32(len(name)))
	copy(c[off:], name)
}

func openBytes(t testing.TB, b []byte, opts Options) (*Volume, error) {
	t.Helper()
	// In memory: the fuzzer makes thousands a second.
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "image")
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	file, err := volume.NewFile("image", f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return Open(file, opts)
}

func TestCraftIsRead(t *testing.T) {
	for _, version := range []uint32{2, 3} {
		v, err := openBytes(t, newCraft(version), Options{})
		if err != nil {
			t.Fatal(err)
		}
		runs, err := v.AppendRuns(nil, 0, v.Size())
		if err != nil || len(runs) != 2 || runs[0].Kind != volume.Data || runs[0].Host != 3*craftCluster || runs[1].Kind != volume.Hole {
			t.Errorf("version %d: runs %+v, %v", version, runs, err)
		}
	}
}

// TestHeaders has each limit of the header below, at and above it. An empty
// want means that the image opens.
func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		name    string
		version uint32
		change  func(c craft)
		want    string
	}{
		{"as it is, version 2", 2, func(c craft) {}, ""},
		{"as it is, version 3", 3, func(c craft) {}, ""},
		{"version 1", 2, func(c craft) { c.u32(4, 1) }, "version 1"},
		{"version 4", 3, func(c craft) { c.u32(4, 4) }, "version 4"},
		{"cluster_bits 8", 3, func(c craft) { c.u32(20, 8) }, "cluster_bits is 8"},
		{"cluster_bits 9", 3, func(c craft) { c.u32(20, 9); c.u64(24, 32<<10) }, ""},
		{"cluster_bits 21", 3, func(c craft) { c.u32(20, 21); c.u64(40, 0) }, "truncated"},
		{"cluster_bits 22", 3, func(c craft) { c.u32(20, 22) }, "cluster_bits is 22"},
		{"cluster_bits 2^31", 3, func(c craft) { c.u32(20, 1<<31) }, "cluster_bits"},
		{"size 0", 3, func(c craft) { c.u64(24, 0); c.u32(36, 0) }, ""},
		{"size at the L1 table's end", 3, func(c craft) { c.u64(24, 512<<20) }, ""},
		{"size past the L1 table's end", 3, func(c craft) { c.u64(24, 512<<20+512) }, "too small for a disk"},
		{"size 2^63", 3, func(c craft) { c.u64(24, 1<<63) }, "virtual size"},
		{"size 2^64-1", 3, func(c craft) { c.u64(24, 1<<64-1) }, "virtual size"},
		{"size 2^63-1", 3, func(c craft) { c.u64(24, 1<<63-1) }, "too small for a disk"},
		{"L1 of 32 MiB", 3, func(c craft) { c.u32(36, 4<<20) }, ""},
		{"L1 over 32 MiB", 3, func(c craft) { c.u32(36, 4<<20+1) }, "larger than"},
		{"L1 of 2^32-1 entries", 3, func(c craft) { c.u32(36, 1<<32-1) }, "larger than"},
		{"L1 unaligned", 3, func(c craft) { c.u64(40, craftCluster+8) }, "not aligned"},
		{"L1 past the end", 3, func(c craft) { c.u64(40, 1<<40) }, "truncated"},
		{"L1 at 2^64", 3, func(c craft) { c.u64(40, 1<<64-craftCluster) }, "too large"},
		{"L2 unaligned", 3, func(c craft) { c.u64(craftCluster, 2*craftCluster+512) }, "not aligned"},
		{"L2 past the end", 3, func(c craft) { c.u64(craftCluster, 1<<50) }, "truncated"},
		{"AES", 3, func(c craft) { c.u32(32, 1) }, "encrypted (AES)"},
		{"LUKS", 3, func(c craft) { c.u32(32, 2) }, "encrypted (LUKS)"},
		{"encryption 3", 3, func(c craft) { c.u32(32, 3) }, "encryption method 3"},
		{"dirty and corrupt", 3, func(c craft) { c.u64(72, featureDirty|featureCorrupt) }, ""},
		{"unknown feature", 3, func(c craft) { c.u64(72, 1<<5) }, "bits 0x20"},
		{"unknown feature with a name", 3, func(c craft) {
			c.u64(72, 1<<63)
			c.extension(104, 0x6803f857, "\x00\x3fteleportation"+strings.Repeat("\x00", 33))
		}, `"teleportation"`},
		{"features in version 2 are no features", 2, func(c craft) { c.u64(72, 0) }, ""},
		{"compatible and autoclear bits", 3, func(c craft) { c.u64(80, 1<<63); c.u64(88, 1<<63) }, ""},
		{"header_length 96", 3, func(c craft) { c.u32(100, 96) }, "header_length"},
		{"header_length 108", 3, func(c craft) { c.u32(100, 108) }, "header_length"},
		{"header_length 112", 3, func(c craft) { c.u32(100, 112) }, ""},
		{"header_length of a cluster", 3, func(c craft) { c.u32(100, craftCluster) }, ""},
		{"header_length over a cluster", 3, func(c craft) { c.u32(100, craftCluster+8) }, "header_length"},
		{"refcount_order 6", 3, func(c craft) { c.u32(96, 6) }, ""},
		{"refcount_order 7", 3, func(c craft) { c.u32(96, 7) }, "refcount_order"},
		{"compression type without its bit", 3, func(c craft) { c.u32(100, 112); c[104] = 1 }, "contradicts"},
		{"compression bit without a type", 3, func(c craft) { c.u64(72, featureCompression); c.u32(100, 112) }, "contradicts"},
		{"zstd", 3, func(c craft) { c.u64(72, featureCompression); c.u32(100, 112); c[104] = 1 }, ""},
		{"compression type 2", 3, func(c craft) { c.u64(72, featureCompression); c.u32(100, 112); c[104] = 2 }, "compression type 2"},
		{"extended L2 with clusters of 8 KiB", 3, func(c craft) { c.u64(72, featureExtendedL2); c.u32(20, 13); c.u64(40, 0) }, "16 KiB"},
		{"extended L2", 3, func(c craft) { c.u64(72, featureExtendedL2) }, ""},
		{"data file without a name", 3, func(c craft) { c.u64(72, featureDataFile) }, "does not name it"},
		{"data file", 3, func(c craft) { c.u64(72, featureDataFile); c.extension(104, 0x44415441, "data") }, "opened data"},
		{"backing name of 1023 bytes", 3, func(c craft) { c.backing(512, strings.Repeat("x", 1023)) }, ""},
		{"backing name of 1024 bytes", 3, func(c craft) { c.backing(512, strings.Repeat("x", 1024)) }, "1024 bytes"},
		{"backing name at the cluster's end", 3, func(c craft) { c.backing(craftCluster-5, "base!") }, ""},
		{"backing name past the cluster's end", 3, func(c craft) { c.backing(craftCluster-4, "base!") }, "outside the first cluster"},
		{"backing name at 2^64-1", 3, func(c craft) { c.u64(8, 1<<64-1); c.u32(16, 4) }, "outside the first cluster"},
		{"backing name right behind the header", 2, func(c craft) { c.backing(72, "base") }, ""},
		{"backing format of 15 bytes", 3, func(c craft) { c.backing(512, "b"); c.extension(104, 0xe2792aca, strings.Repeat("f", 15)) }, ""},
		{"backing format of 16 bytes", 3, func(c craft) { c.backing(512, "b"); c.extension(104, 0xe2792aca, strings.Repeat("f", 16)) }, "name of 16 bytes"},
		{"extension past the cluster", 3, func(c craft) { c.u32(104, 1); c.u32(108, craftCluster) }, "runs past"},
		{"extension of 2^32-1 bytes", 3, func(c craft) { c.u32(104, 1); c.u32(108, 1<<32-1) }, "runs past"},
		{"unknown extension", 3, func(c craft) { c.extension(104, 0x12345678, "whatever") }, ""},
		{"snapshots over 65536", 3, func(c craft) { c.u32(60, 65537); c.u64(64, 3*craftCluster) }, "snapshots"},
		{"snapshot table unaligned", 3, func(c craft) { c.u32(60, 1); c.u64(64, 3*craftCluster+8) }, "not aligned"},
		{"snapshot table at 0", 3, func(c craft) { c.u32(60, 1) }, "not aligned"},
		{"snapshot table at 2^63", 3, func(c craft) { c.u32(60, 1); c.u64(64, 1<<63) }, "not aligned"},
		{"snapshot table past the end", 3, func(c craft) { c.u32(60, 1); c.u64(64, 1<<40) }, "truncated: the snapshot table"},
		{"snapshot with 1024 bytes of extra data", 3, func(c craft) { c.u32(60, 1); c.u64(64, 3*craftCluster); c.u32(3*craftCluster+36, 1024) }, ""},
		{"snapshot with 1025 bytes of extra data", 3, func(c craft) { c.u32(60, 1); c.u64(64, 3*craftCluster); c.u32(3*craftCluster+36, 1025) }, "extra data"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newCraft(c.version)
			c.change(b)
			_, err := openBytes(t, b, Options{OpenData: func(name string) (*volume.File, error) {
				return nil, errors.New("opened " + name)
			}})
			switch {
			case c.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case c.want != "" && err == nil:
				t.Errorf("opened, want an error with %q", c.want)
			case err != nil && !strings.Contains(err.Error(), c.want):
				t.Errorf("error %q, want one with %q", err, c.want)
			}
		})
	}
}

func TestBacking(t *testing.T) {
	b := newCraft(3)
	b.extension(104, 0xe2792aca, "raw")
	b.backing(512, "base.raw\x00rest")
	v, err := openBytes(t, b, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if name, format := v.Backing(); name != "base.raw" || format != "raw" {
		t.Errorf("backing %q of format %q", name, format)
	}
}

func TestNotQcow2(t *testing.T) {
	for _, b := range [][]byte{bytes.Repeat([]byte{'x'}, 100), append([]byte("QFI\xfa"), make([]byte, 100)...)} {
		if _, err := openBytes(t, b, Options{}); !errors.Is(err, volume.ErrNotThisFormat) {
			t.Errorf("error %v", err)
		}
	}
	for _, b := range []string{"", "Q", "QFI\xfb", "QFI\xfb\x00\x00\x00\x03"} {
		if _, err := openBytes(t, []byte(b), Options{}); err == nil {
			t.Errorf("a file of %d bytes opens", len(b))
		}
	}
}
