package layers_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"flatimg/integration/rig"
	"flatimg/layers"
)

// fuzzChains are small chains that use all there is in qcow2, so that a few
// changed bytes reach each part of the reader.
var fuzzChains = []rig.Chain{
	{Size: 64 << 10, Layers: []rig.Layer{
		{Options: "cluster_size=512", Writes: []rig.Write{{Off: 0, Len: 8192}, {Kind: rig.Zero, Off: 4096, Len: 1024}, {Off: 60_416, Len: 5120}}},
	}},
	{Size: 128 << 10, Layers: []rig.Layer{
		{Options: "cluster_size=4k", Writes: []rig.Write{{Off: 0, Len: 65536}}},
		{Options: "cluster_size=4k", Size: 64 << 10, Writes: []rig.Write{{Kind: rig.Compressed, Off: 8192, Len: 16384}, {Kind: rig.Zero, Off: 32768, Len: 4096}}},
		{Options: "cluster_size=2k", Writes: []rig.Write{{Off: 30_720, Len: 4096}, {Off: 100_352, Len: 2048}}},
	}},
	{Size: 256 << 10, Layers: []rig.Layer{
		{Format: "raw", Writes: []rig.Write{{Off: 0, Len: 65536}}},
		{Options: "cluster_size=16k,extended_l2=on", Writes: []rig.Write{{Off: 512, Len: 20_480}, {Kind: rig.Zero, Off: 33_280, Len: 512}}},
	}},
	{Size: 256 << 10, Layers: []rig.Layer{
		{Options: "cluster_size=64k,compression_type=zstd", Writes: []rig.Write{{Kind: rig.Compressed, Off: 0, Len: 128 << 10}}},
	}},
	{Size: 64 << 10, Layers: []rig.Layer{
		{Options: "cluster_size=1k,compat=0.10", Writes: []rig.Write{{Off: 1024, Len: 10_240}}},
	}},
}

// FuzzAgainstQEMU changes bytes of the top volume of a chain. The result is
// refused, or it reads as QEMU reads it. The input is the number of the chain
// and three bytes for each change: position (twice 8 bits) and value.
func FuzzAgainstQEMU(f *testing.F) {
	rig.Need(f, "qemu-img")
	dir := f.TempDir()
	tops := make([][]byte, len(fuzzChains))
	dirs := make([]string, len(fuzzChains))
	for i, chain := range fuzzChains {
		dirs[i] = filepath.Join(dir, string(rune('a'+i)))
		if err := os.Mkdir(dirs[i], 0o700); err != nil {
			f.Fatal(err)
		}
		top, err := os.ReadFile(chain.Build(f, dirs[i]).Top)
		if err != nil {
			f.Fatal(err)
		}
		tops[i] = top
		f.Add(uint8(i), []byte{})
		// The L1 table's offset, and the first bytes of the second cluster.
		f.Add(uint8(i), []byte{0, 46, 1, 2, 0, 1, 4, 0, 0x40})
		f.Add(uint8(i), []byte{0, 31, 0x90, 0, 39, 7, 0, 79, 1})
	}
	f.Fuzz(func(t *testing.T, number uint8, changes []byte) {
		n := int(number) % len(tops)
		image := bytes.Clone(tops[n])
		for len(changes) >= 3 {
			at := int(binary.BigEndian.Uint16(changes)) % len(image)
			image[at] = changes[2]
			changes = changes[3:]
		}
		path := filepath.Join(dirs[n], "fuzzed.qcow2")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readAll(path)
		if err != nil {
			return
		}
		want := path + ".raw"
		cmd := exec.Command("qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, want)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Logf("QEMU refuses what is read here: %s", out)
			return
		}
		reference, err := os.ReadFile(want)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, reference) {
			t.Errorf("reads otherwise than QEMU does: %d and %d bytes", len(got), len(reference))
		}
	})
}

// readAll reads the disk of an image, which must not be larger than 4 MiB.
func readAll(path string) ([]byte, error) {
	im, err := layers.Open(path, layers.Options{Format: "qcow2"})
	if err != nil {
		return nil, err
	}
	defer im.Close()
	if im.Size() > 4<<20 {
		return nil, os.ErrInvalid
	}
	for _, err := range im.Extents(0, layers.MaxLength) {
		if err != nil {
			return nil, err
		}
	}
	p := make([]byte, im.Size())
	_, err = im.ReadAt(p, 0)
	return p, err
}
