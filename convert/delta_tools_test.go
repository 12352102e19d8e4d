package convert

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flatimg/integration/rig"
	"flatimg/layers"
)

// deltaChains are chains that are hard on a delta.
var deltaChains = map[string]rig.Chain{
	"short-middle": {Size: 6 * miB, Layers: []rig.Layer{
		{Writes: []rig.Write{{Off: 0, Len: 6 * miB}}},
		{Size: 2*miB + 512, Writes: []rig.Write{{Off: 100, Len: 5000}}},
		{Options: "cluster_size=4k", Writes: []rig.Write{{Off: 4 * miB, Len: 7}}},
	}},
	"grown-top": {Size: 3 * miB, Layers: []rig.Layer{
		{Format: "raw", Size: 1*miB + 512, Writes: []rig.Write{{Off: 0, Len: 1*miB + 512}}},
		{Writes: []rig.Write{{Off: 1 * miB, Len: 1000}}},
		{Size: 9 * miB, Writes: []rig.Write{{Off: 8 * miB, Len: 1}, {Kind: rig.Zero, Off: 3 * miB, Len: 1 * miB}}},
	}},
	"shrunk-top": {Size: 8 * miB, Layers: []rig.Layer{
		{Writes: []rig.Write{{Off: 0, Len: 8 * miB}}},
		{Size: 3*miB + 512, Writes: []rig.Write{{Off: 3 * miB, Len: 512}}},
	}},
	"hidden": {Size: 8 * miB, Layers: []rig.Layer{
		{Options: "cluster_size=2M", Writes: []rig.Write{{Off: 0, Len: 8 * miB}}},
		{Writes: []rig.Write{{Kind: rig.Zero, Off: 1 * miB, Len: 3 * miB}, {Kind: rig.Discard, Off: 6*miB + 5, Len: 600 * kiB}}},
		{Writes: []rig.Write{{Off: 2 * miB, Len: 1}, {Kind: rig.Zero, Off: 2*miB + 64*kiB, Len: 64 * kiB}}},
	}},
	"compressed": {Size: 4 * miB, Layers: []rig.Layer{
		{Writes: []rig.Write{{Kind: rig.Compressed, Off: 0, Len: 2 * miB}}},
		{Options: "compression_type=zstd,cluster_size=4k", Writes: []rig.Write{{Kind: rig.Compressed, Off: 1 * miB, Len: 64 * kiB}}},
	}},
	"subclusters": {Size: 4 * miB, Layers: []rig.Layer{
		{Writes: []rig.Write{{Off: 0, Len: 4 * miB}}},
		{Options: "extended_l2=on,cluster_size=128k", Writes: []rig.Write{{Off: 10 * kiB, Len: 3000}, {Kind: rig.Zero, Off: 1 * miB, Len: 12 * kiB}, {Off: 3 * miB, Len: 4096}}},
	}},
}

// TestQemuReadsDeltas has QEMU read deltas above each layer of chains, by the
// maps and by content.
func TestQemuReadsDeltas(t *testing.T) {
	t.Parallel() // it mostly waits for programs
	tool(t, "qemu-img")
	tool(t, "qemu-io")
	chains := maps.Clone(deltaChains)
	seeds := uint64(10)
	if testing.Short() {
		seeds = 3
	}
	for seed := uint64(100); seed < 100+seeds; seed++ {
		chains[fmt.Sprint("random-", seed)] = rig.RandomChain(seed)
	}
	options := []string{"", ",cluster_size=4k", ",cluster_size=2M", ",compression=zstd", ",compression=deflate,cluster_size=4k"}
	n := 0
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		chain := chains[name]
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			built := chain.Build(t, dir)
			im := openImage(t, built.Top)
			flat := filepath.Join(dir, "flat.raw")
			run(t, dir, "qemu-img", "convert", "-f", im.Layers()[len(im.Layers())-1].Format(), "-O", "raw", built.Top, flat)
			for layer, path := range built.Paths {
				below := im.At(layer)
				spec := mustSpec(t, options[n%len(options)])
				n++
				changes, err := ChangesSince(im, below, layer, spec)
				if err != nil {
					t.Fatal(err)
				}
				base := Backing{filepath.Base(path), im.Layers()[layer].Format()}
				checkDeltaWithQemu(t, dir, changes, base, flat)
				checkRebased(t, dir, changes, base, flat)
				compared := compare(t, changes, below)
				checkDeltaWithQemu(t, dir, compared, base, flat)
				checkThin(t, compared, im, below)
			}
		})
	}
}

func openImage(t *testing.T, path string) *layers.Image {
	t.Helper()
	im, err := layers.Open(path, layers.Options{Format: strings.TrimPrefix(filepath.Ext(path), ".")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

// storeDelta writes a delta to a file, packed if its spec says so, and returns
// the size.
func storeDelta(t *testing.T, c *Changes, b Backing, path string) int64 {
	t.Helper()
	if !c.spec.Packed() {
		target, err := c.Target(b)
		if err != nil {
			t.Fatal(err)
		}
		store(t, target, path)
		return target.Size()
	}
	p, err := c.Packer(b)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := p.Pack(t.Context(), f, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return size
}

// checkRebased writes a delta into dir with a name of the base that leads
// nowhere, and has QEMU correct it and compare the two with the raw image flat.
func checkRebased(t *testing.T, dir string, c *Changes, base Backing, flat string) {
	t.Helper()
	path := filepath.Join(dir, "target.qcow2")
	storeDelta(t, c, Backing{"elsewhere/" + base.Name, base.Format}, path)
	run(t, dir, "qemu-img", "rebase", "-u", "-b", base.Name, "-F", base.Format, path)
	run(t, dir, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, flat)
}

// checkDeltaWithQemu writes a delta into dir, where the base is, and has QEMU
// check it and compare the two with the raw image flat.
func checkDeltaWithQemu(t *testing.T, dir string, c *Changes, base Backing, flat string) {
	t.Helper()
	path := filepath.Join(dir, "target.qcow2")
	size := storeDelta(t, c, base, path)
	checkWithQemu(t, dir, size, flat, "raw")
	var info struct {
		Backing string `json:"backing-filename"`
		Format  string `json:"backing-filename-format"`
		Size    int64  `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(run(t, dir, "qemu-img", "info", "--output=json", "-f", "qcow2", path)), &info); err != nil {
		t.Fatal(err)
	}
	if info.Backing != base.Name || info.Format != base.Format || info.Size != c.disk.Size() {
		t.Fatalf("qemu-img info says %+v, want %v and %d bytes", info, base, c.disk.Size())
	}
}

// checkThin compares the number of bytes of c, which was compared, with what
// differs between the disks.
func checkThin(t *testing.T, c *Changes, disk, base *layers.Image) {
	t.Helper()
	var changed, stored int64
	ours, theirs := make([]byte, 1<<c.bits), make([]byte, 1<<c.bits)
	state := contentState(ours, theirs)
	for off := int64(0); off < disk.Size(); off += 1 << c.bits {
		clear(ours)
		clear(theirs)
		length := min(1<<c.bits, disk.Size()-off)
		disk.ReadAt(ours[:length], off)
		base.ReadAt(theirs[:length], off)
		if s := state(0, length); s != absent {
			changed += 1 << c.bits
			if s == data {
				stored += 1 << c.bits
			}
		}
	}
	if c.Length() != changed || c.Data() != stored {
		t.Fatalf("%d bytes in changed clusters, %d of data; the disks differ in %d and %d", c.Length(), c.Data(), changed, stored)
	}
}

// TestQemuReadsDeltaOfStrangers compares an image with one that it has nothing
// to do with, smaller or larger, and stores it on top of that.
func TestQemuReadsDeltaOfStrangers(t *testing.T) {
	t.Parallel() // it mostly waits for programs
	tool(t, "qemu-img")
	tool(t, "qemu-io")
	dir := t.TempDir()
	write := func(from, length int64) rig.Write { return rig.Write{Off: from, Len: length} }
	a := rig.Chain{Name: "a", Size: 5*miB + 512, Seed: 1, Layers: []rig.Layer{{Writes: []rig.Write{write(0, 3*miB), write(5*miB, 512)}}, {}}}.Build(t, dir)
	b := rig.Chain{Name: "b", Size: 9 * miB, Seed: 1, Layers: []rig.Layer{{Format: "raw", Writes: []rig.Write{write(0, 3*miB), write(4*miB, 5*miB)}}}}.Build(t, dir)
	for _, pair := range [][2]*rig.Image{{a, b}, {b, a}} {
		disk, base := openImage(t, pair[0].Top), openImage(t, pair[1].Top)
		flat := filepath.Join(dir, "flat.raw")
		format := func(im *layers.Image) string { return im.Layers()[len(im.Layers())-1].Format() }
		run(t, dir, "qemu-img", "convert", "-f", format(disk), "-O", "raw", pair[0].Top, flat)
		for _, options := range deltaOptions[1:] {
			changes := compare(t, mustChanges(t, disk, base, mustSpec(t, options)), base)
			checkDeltaWithQemu(t, dir, changes, Backing{filepath.Base(pair[1].Top), format(base)}, flat)
			checkThin(t, changes, disk, base)
			if changes.Data() > 9*miB-3*miB {
				t.Errorf("%d bytes of data: what is the same is stored", changes.Data())
			}
		}
	}
}
