package convert

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"flatimg/layers"
	"flatimg/layers/volume"
)

var testBacking = Backing{"base.raw", "raw"}

// clusterState is what a delta has for a cluster.
type clusterState int

const (
	absent clusterState = iota
	zeros
	data
)

// mustSpec returns a spec of qcow2 with options.
func mustSpec(t testing.TB, options string) Spec {
	t.Helper()
	spec, err := ParseSpec("qcow2" + options)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// lay returns the target of changes, which must be possible.
func lay(t testing.TB, c *Changes, err error) *qcow2 {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	target, err := c.Target(testBacking)
	if err != nil {
		t.Fatal(err)
	}
	return target.(*qcow2)
}

// checkDelta reads a delta with the strict reader and compares what it and base
// show with want, which may be shorter, and the state of each cluster.
func checkDelta(t testing.TB, target *qcow2, base, want []byte, state func(guest, length int64) clusterState) {
	t.Helper()
	q := parseQcow2(t, target)
	if q.backing != testBacking || q.size < int64(len(want)) {
		t.Fatalf("a disk of %d bytes, %d are wanted, on %v", q.size, len(want), q.backing)
	}
	slice := func(p []byte, off int64) []byte {
		out := make([]byte, q.clusterSize)
		if off < int64(len(p)) {
			copy(out, p[off:])
		}
		return out
	}
	q.check(func(guest, host int64) {
		got, is := slice(base, guest), absent
		switch {
		case host < 0:
			got, is = make([]byte, q.clusterSize), zeros
		case host > 0:
			got, is = read(t, target, host, q.clusterSize), data
		}
		length := min(q.clusterSize, q.size-guest)
		if !bytes.Equal(got[:length], slice(want, guest)[:length]) {
			t.Fatalf("cluster %#x (at %#x in the file) differs", guest, host)
		}
		if expect := state(guest, length); is != expect {
			t.Fatalf("cluster %#x has state %d, want %d", guest, is, expect)
		}
	})
	checkRuns(t, target)
}

// sinceState is the state of a cluster by the offset maps, found a sector at a time.
func sinceState(disk, below *modelDisk, layer int) func(guest, length int64) clusterState {
	return func(guest, length int64) clusterState {
		changed, holds := false, false
		for n := guest / sectorSize; n < (guest+length)/sectorSize; n++ {
			ours, theirs := disk.sector(n), below.sector(n)
			has, had := holdsData(layers.Extent{Kind: ours.kind}), holdsData(layers.Extent{Kind: theirs.kind})
			grown := n >= int64(len(disk.sectors))
			changed = changed || (ours.layer > layer || grown) && (has || had)
			holds = holds || has
		}
		switch {
		case !changed:
			return absent
		case holds:
			return data
		}
		return zeros
	}
}

// contentState is the state of a cluster by what is in it.
func contentState(want, base []byte) func(guest, length int64) clusterState {
	at := func(p []byte, off, length int64) []byte {
		out := make([]byte, length)
		if off < int64(len(p)) {
			copy(out, p[off:])
		}
		return out
	}
	return func(guest, length int64) clusterState {
		ours, theirs := at(want, guest, length), at(base, guest, length)
		switch {
		case bytes.Equal(ours, theirs):
			return absent
		case allZeros(ours):
			return zeros
		}
		return data
	}
}

var deltaOptions = []string{",cluster_size=512", ",cluster_size=4k", "", ",cluster_size=2M"}

// TestChanges makes deltas of random chains, above each layer and by content,
// and compares the state of each cluster with what a slow model says.
func TestChanges(t *testing.T) {
	for seed := range uint64(24) {
		chain := randomModel(seed, 600)
		top := len(chain) - 1
		disk := chain.at(top)
		want := disk.content
		options := deltaOptions[seed%4]
		spec := mustSpec(t, options)
		if seed%3 == 0 {
			spec.VirtualSize = disk.Size() + 150*kiB
		}
		for layer := range chain {
			name := fmt.Sprintf("seed %d, above %d of %d%s", seed, layer, top, options)
			below := chain.at(layer)
			base := below.content
			since, err := ChangesSince(disk, below, layer, spec)
			target := lay(t, since, err)
			checkDelta(t, target, base, want, sinceState(disk, below, layer))
			if layer == top && spec.VirtualSize == 0 && since.Length() != 0 {
				t.Fatalf("%s: %d bytes changed", name, since.Length())
			}
			if layer == 0 && seed < 4 {
				checkRanges(t, target, read(t, target, 0, target.Size()), target.edges())
			}
			for _, c := range []*Changes{since, mustChanges(t, disk, below, spec)} {
				compared := compare(t, c, below)
				checkDelta(t, lay(t, compared, nil), base, want, contentState(want, base))
				if compared.Data() > c.Data() || compared.Length() > c.Length() {
					t.Fatalf("%s: %d of %d bytes changed, by the maps %d of %d", name, compared.Data(), compared.Length(), c.Data(), c.Length())
				}
			}
		}
		// A disk that has nothing to do with it.
		other := randomModel(seed+1000, 600).at(0)
		checkDelta(t, lay(t, compare(t, mustChanges(t, disk, other, spec), other), nil), other.content, want, contentState(want, other.content))
	}
}

func mustChanges(t testing.TB, disk, base Disk, spec Spec) *Changes {
	t.Helper()
	c, err := ChangesFrom(disk, base, spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func compare(t testing.TB, c *Changes, base Disk) *Changes {
	t.Helper()
	var done int64
	compared, err := c.Compare(t.Context(), base, func(n int64) { done += n })
	if err != nil {
		t.Fatal(err)
	}
	if done != c.Length() {
		t.Fatalf("%d of %d bytes were compared", done, c.Length())
	}
	return compared
}

// Chains with deltas, plain and packed, as package layers reads them.
func TestDeltaIsReadBack(t *testing.T) {
	for seed := range uint64(24) {
		chain := randomModel(seed, 3000)
		disk, layer := chain.at(len(chain)-1), int(seed)%len(chain)
		checkReadBack(t, fmt.Sprint("seed ", seed), disk, chain.at(layer), layer, deltaOptions[seed%4], 0)
	}
	// With clusters of 512 bytes a table is 64 sectors: some have data, some
	// only zeros, also the last ones, and a disk that is grown over a base
	// which is longer has nothing of that.
	data := modelSector{kind: volume.Data, seed: 1}
	base := slices.Repeat([]modelSector{data}, 20*64)
	top := make([]modelSector, 10*64)
	for table, kind := range map[int]volume.Kind{1: volume.Data, 3: volume.Zero, 4: volume.Zero, 6: volume.Data, 7: volume.Zero, 9: volume.Zero} {
		top[table*64+5] = modelSector{kind: kind, seed: 2}
	}
	chain := modelChain{base, top}
	for _, size := range []int64{0, 12 * 64 * sectorSize, 30 * 64 * sectorSize} {
		for _, options := range deltaOptions {
			checkReadBack(t, fmt.Sprintf("size %d%s", size, options), chain.at(1), chain.at(0), 0, options, size)
		}
	}
}

// checkReadBack writes the delta of disk above a layer, below, and compares what
// package layers reads with the disk and with zeros up to the virtual size.
func checkReadBack(t *testing.T, name string, disk, below *modelDisk, layer int, options string, size int64) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "base.raw"), below.content)
	want := append(slices.Clone(disk.content), make([]byte, max(0, size-disk.Size()))...)
	for _, compression := range []string{"none", "deflate", "zstd"} {
		spec := mustSpec(t, options+",compression="+compression)
		spec.VirtualSize = size
		changes, err := ChangesSince(disk, below, layer, spec)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, compression)
		if compression == "none" {
			target := lay(t, changes, nil)
			writeFile(t, path, read(t, target, 0, target.Size()))
		} else {
			writeFile(t, path, packDelta(t, changes))
		}
		im, err := layers.Open(path, layers.Options{})
		if err != nil {
			t.Fatalf("%s, %s: %v", name, compression, err)
		}
		got := make([]byte, im.Size())
		if _, err := im.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, %s: the delta shows another disk, %v", name, compression, err)
		}
		im.Close()
	}
}

// packDelta returns the file that a packer makes, the same with any number of
// processors.
func packDelta(t testing.TB, c *Changes) []byte {
	t.Helper()
	var files [2][]byte
	for i := range files {
		p, err := c.Packer(testBacking)
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		}
		w := new(onceWriter)
		size, err := p.Pack(context.Background(), w, func(int64) {})
		if err != nil || size > p.Bound() {
			t.Fatalf("size %d, bound %d, %v", size, p.Bound(), err)
		}
		w.check(t)
		files[i] = append(w.bytes, make([]byte, size-int64(len(w.bytes)))...)
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Fatal("a second file differs")
	}
	return files[0]
}

// What is zeros on both sides is not in the file, however large it is: a disk
// that was grown to 1 TiB costs nothing, and neither do unchanged ranges.
func TestDeltaIsThin(t *testing.T) {
	below := newDisk(1*giB, Run{0, 500 * miB})
	disk := newDisk(1*tiB, Run{0, 500 * miB}, Run{700 * giB, 1 * miB})
	for i := range disk.extents {
		disk.extents[i].Layer = 1 // a middle layer that is short says zeros
	}
	disk.extents[0].Layer = 0
	since, err := ChangesSince(disk, below, 0, mustSpec(t, ""))
	target := lay(t, since, err)
	if since.Length() != 1*miB || target.Size() > 2*miB {
		t.Errorf("%d bytes changed, the file has %d bytes", since.Length(), target.Size())
	}
	start, _, err := NextData(target, target.data)
	if err != nil || start != target.data {
		t.Errorf("the data is at %#x, its first byte at %#x, %v", target.data, start, err)
	}
}

// recording is a disk that lists what is read of it.
type recording struct {
	*disk
	mu    sync.Mutex
	reads []Run
}

func (r *recording) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads = append(r.reads, Run{off, length})
	return r.disk.AppendSegments(dst, off, length)
}

// What the maps leave open is read, and nothing else.
func TestCompareReadsCandidates(t *testing.T) {
	disk := &recording{disk: newDisk(1*tiB, Run{1 * giB, 1}, Run{700*giB + 5, 100 * kiB})}
	base := &recording{disk: newDisk(2*tiB, Run{1 * giB, 1}, Run{800 * giB, 100}, Run{1 * tiB, 500 * giB})}
	changes := mustChanges(t, disk, base, mustSpec(t, ""))
	if len(disk.reads)+len(base.reads) > 0 {
		t.Errorf("the maps alone made it read %v, %v", disk.reads, base.reads)
	}
	if got := compare(t, changes, base); got.Length() != 3*64*kiB || got.Data() != 2*64*kiB {
		t.Errorf("%d bytes changed, %d are data", got.Length(), got.Data())
	}
	want := []Run{{1 * giB, 64 * kiB}, {700 * giB, 2 * 64 * kiB}, {800 * giB, 64 * kiB}}
	for name, reads := range map[string][]Run{"disk": disk.reads, "base": base.reads} {
		slices.SortFunc(reads, func(a, b Run) int { return cmp.Compare(a.Offset, b.Offset) })
		if !slices.Equal(reads, want) {
			t.Errorf("of the %s it read %v, want %v", name, reads, want)
		}
	}
}

func TestCompareErrors(t *testing.T) {
	whole := newDisk(4*miB, Run{0, 4 * miB})
	for name, pair := range map[string][2]Disk{
		"disk": {broken{whole, 4 * miB, 3 * miB}, newDisk(4 * miB)},
		"base": {whole, broken{whole, 4 * miB, 3 * miB}},
	} {
		c := mustChanges(t, pair[0], pair[1], mustSpec(t, ""))
		if got, err := c.Compare(t.Context(), pair[1], func(int64) {}); !errors.Is(err, errBroken) || got != nil {
			t.Errorf("a broken %s gives %v, %v", name, got, err)
		}
	}
	bad := broken{whole, 1 * miB, 4 * miB}
	if c, err := ChangesFrom(whole, bad, mustSpec(t, "")); !errors.Is(err, errBroken) || c != nil {
		t.Errorf("a broken map gives %v, %v", c, err)
	}
	if c, err := ChangesSince(bad, whole, -1, mustSpec(t, "")); !errors.Is(err, errBroken) || c != nil {
		t.Errorf("a broken map gives %v, %v", c, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := mustChanges(t, whole, whole, mustSpec(t, "")).Compare(ctx, whole, func(int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("after an end: %v", err)
	}
}

func TestDeltaRefuses(t *testing.T) {
	disk := newDisk(1*miB, Run{0, 1 * miB})
	for text, want := range map[string]string{
		"raw":                "can't hold only the changes",
		"vmdk":               "can't hold only the changes",
		"qcow2,compat=0.10":  "compat=0.10 can't hold only",
		"qcow2,compat=v2":    "compat=v2 can't hold only",
		"qcow2,compress=yes": "no option",
	} {
		name, options, _ := strings.Cut(text, ",")
		spec := Spec{Format: name}
		if option, value, ok := strings.Cut(options, "="); ok {
			spec.Options = map[string]string{option: value}
		}
		_, err := ChangesFrom(disk, disk, spec)
		if e := new(SpecError); !errors.As(err, &e) || e.Help == "" || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	spec := mustSpec(t, "")
	spec.VirtualSize = 512
	if _, err := ChangesFrom(disk, disk, spec); err == nil {
		t.Error("a disk is cut off")
	}
	if _, err := ChangesFrom(sizeOnly{disk, 1 << 52}, disk, mustSpec(t, "")); !errors.As(err, new(*LimitError)) {
		t.Errorf("a large disk: %v", err)
	}
	if _, err := mustChanges(t, disk, disk, mustSpec(t, ",compression=zstd")).Target(testBacking); !errors.As(err, new(*PackedError)) {
		t.Errorf("a packed target: %v", err)
	}
	if _, err := mustChanges(t, disk, disk, mustSpec(t, "")).Packer(testBacking); err == nil {
		t.Error("a packer for what is not packed")
	}
}

func TestBacking(t *testing.T) {
	disk := newDisk(1 * miB)
	for _, c := range []struct {
		options  string
		backing  Backing
		recorded string // empty: it is refused
	}{
		{"", Backing{"a", "qcow2"}, "a"},
		{"", Backing{"/x y/ä.img", "raw"}, "/x y/ä.img"},
		{"", Backing{"a:b", "raw"}, "./a:b"},
		{"", Backing{"dir/a:b", "raw"}, "dir/a:b"},
		{"", Backing{strings.Repeat("n", 1023), "123456789012345"}, strings.Repeat("n", 1023)},
		{"", Backing{strings.Repeat("n", 1024), "raw"}, ""},
		{"", Backing{":" + strings.Repeat("n", 1021), "raw"}, ""},
		{",cluster_size=512", Backing{strings.Repeat("n", 376), "raw"}, strings.Repeat("n", 376)},
		{",cluster_size=512", Backing{strings.Repeat("n", 377), "raw"}, ""},
		{"", Backing{"", "raw"}, ""},
		{"", Backing{"a\x00b", "raw"}, ""},
		{"", Backing{"a", ""}, ""},
		{"", Backing{"a", "1234567890123456"}, ""},
		{"", Backing{"a", "r\x00w"}, ""},
	} {
		changes := mustChanges(t, disk, disk, mustSpec(t, c.options))
		target, err := changes.Target(c.backing)
		if c.recorded == "" {
			if e := new(SpecError); !errors.As(err, &e) || e.Help == "" {
				t.Errorf("%q: %v", c.backing, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", c.backing, err)
			continue
		}
		if got := parseQcow2(t, target).backing; got != (Backing{c.recorded, c.backing.Format}) {
			t.Errorf("%q is recorded as %q", c.backing, got)
		}
	}
}

// FuzzChanges makes deltas of small chains.
func FuzzChanges(f *testing.F) {
	f.Add(uint64(1), uint8(0), uint16(100))
	f.Add(uint64(77), uint8(7), uint16(0))
	f.Fuzz(func(t *testing.T, seed uint64, clusterBits uint8, more uint16) {
		chain := randomModel(seed, 300)
		disk := chain.at(len(chain) - 1)
		layer := int(seed % uint64(len(chain)))
		below := chain.at(layer)
		spec := mustSpec(t, fmt.Sprintf(",cluster_size=%d", 512<<(clusterBits%9)))
		spec.VirtualSize = disk.Size() + int64(more)*sectorSize
		since, err := ChangesSince(disk, below, layer, spec)
		checkDelta(t, lay(t, since, err), below.content, disk.content, sinceState(disk, below, layer))
		compared := compare(t, since, below)
		checkDelta(t, lay(t, compared, nil), below.content, disk.content, contentState(disk.content, below.content))
	})
}
