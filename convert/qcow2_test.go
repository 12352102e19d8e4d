package convert

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

const (
	kiB = 1 << 10
	miB = 1 << 20
	giB = 1 << 30
	tiB = 1 << 40
)

// diskCase is a disk and the qcow2 options to lay it out with.
type diskCase struct {
	name    string
	disk    *disk
	options string // with the comma in front
}

// boundaryRuns returns one byte of data on both sides of some boundaries.
func boundaryRuns(size, unit int64) []Run {
	var runs []Run
	for i := int64(0); i < size; i += 3 * unit {
		runs = append(runs, Run{i, 1})
		if end := i + unit - 1; end < size && unit > 1 {
			runs = append(runs, Run{end, 1})
		}
	}
	return runs
}

// smallCases fit into memory, some with many L2 tables and refcount blocks.
func smallCases() []diskCase {
	return []diskCase{
		{"empty", newDisk(4 * miB), ""},
		{"size-zero", newDisk(0), ""},
		{"size-zero-v2", newDisk(0), ",compat=0.10"},
		{"one-sector", newDisk(512, Run{0, 512}), ""},
		{"one-byte", newDisk(1, Run{0, 1}), ""},
		{"one-cluster", newDisk(64*kiB, Run{0, 64 * kiB}), ""},
		{"one-cluster-512", newDisk(512, Run{100, 3}), ",cluster_size=512"},
		{"full", newDisk(3*miB, Run{0, 3 * miB}), ""},
		{"full-512", newDisk(1*miB, Run{0, 1 * miB}), ",cluster_size=512"},
		{"full-512-v2", newDisk(1*miB, Run{0, 1 * miB}), ",cluster_size=512,compat=v2"},
		{"boundaries", newDisk(4*miB, boundaryRuns(4*miB, 64*kiB)...), ""},
		{"boundaries-512", newDisk(1*miB, boundaryRuns(1*miB, 512)...), ",cluster_size=512"},
		{"boundaries-4k-v2", newDisk(4*miB, boundaryRuns(4*miB, 4096)...), ",cluster_size=4k,compat=0.10"},
		{"boundaries-2M", newDisk(14*miB, boundaryRuns(14*miB, 2*miB)...), ",cluster_size=2M"},
		{"last-partial", newDisk(3*miB+512, Run{3 * miB, 512}), ""},
		{"last-partial-2M", newDisk(3*miB+512, Run{3 * miB, 512}), ",cluster_size=2M"},
		{"odd-size", newDisk(1*miB+77, Run{5, 70000}, Run{1*miB + 70, 7}), ""},
		{"odd-size-512", newDisk(100*kiB+77, Run{5, 700}, Run{100*kiB + 70, 7}), ",cluster_size=512"},
		{"scattered-512", randomDisk(6*miB, 1, 3000, 9000), ",cluster_size=512"},
		{"scattered-1k", randomDisk(6*miB, 2, 3000, 9000), ",cluster_size=1k"},
		{"scattered-64k", randomDisk(9*miB, 3, 200000, 300000), ",compat=v3"},
		{"tiny-runs", randomDisk(512*kiB, 4, 40, 40), ",cluster_size=512"},
		// More refcount blocks than fit into one cluster of the table:
		// 64 blocks of 256 clusters of 512 bytes are 8 MiB.
		{"refcount-table-512", newDisk(10*miB, Run{17, 10*miB - 40}), ",cluster_size=512"},
	}
}

// edges are the offsets at which something starts or ends in a target.
func (t *qcow2) edges() []int64 {
	edges := []int64{0, 72, 104, t.size}
	for _, s := range t.head {
		edges = append(edges, s.start, s.used, s.end)
	}
	for _, s := range []int64{1, 2, 7} {
		edges = append(edges, t.l2Tables+s<<t.bits, t.data+s<<t.bits)
	}
	return edges
}

func TestQcow2(t *testing.T) {
	for _, c := range smallCases() {
		t.Run(c.name, func(t *testing.T) {
			target := build(t, c.disk, "qcow2"+c.options)
			whole := read(t, target, 0, target.Size())
			checkContent(t, c.disk, target)
			checkRanges(t, target, whole, target.(*qcow2).edges())
			checkRuns(t, target)
			again := build(t, c.disk, "qcow2"+c.options)
			if !bytes.Equal(read(t, again, 0, again.Size()), whole) {
				t.Error("a second layout differs")
			}
			spec, _ := ParseSpec("qcow2" + c.options)
			m, err := Measure(c.disk, spec)
			if err != nil || m.Required != target.Size() {
				t.Errorf("measure = %+v, %v, the target has %d bytes", m, err, target.Size())
			}
			full := newDisk(c.disk.size, Run{0, c.disk.size})
			if c.disk.size == 0 {
				full = newDisk(0)
			}
			if size := build(t, full, "qcow2"+c.options).Size(); m.FullyAllocated != size {
				t.Errorf("measure = %+v, with data everywhere the target has %d bytes", m, size)
			}
		})
	}
}

// checkContent reads target with the strict reader and compares it with d.
func checkContent(t testing.TB, d *disk, target Target) {
	t.Helper()
	q := parseQcow2(t, target)
	if want := roundUp(d.size, 512); q.size != want {
		t.Fatalf("virtual size %d, want %d", q.size, want)
	}
	var lastHost int64
	q.check(func(guest, host int64) {
		want := d.read(guest, q.clusterSize)
		got := make([]byte, q.clusterSize)
		if host != 0 {
			got = read(t, target, host, q.clusterSize)
			if host <= lastHost {
				t.Fatalf("cluster %#x is at %#x, the one before at %#x", guest, host, lastHost)
			}
			lastHost = host
			if !slices.ContainsFunc(want, func(b byte) bool { return b != 0 }) {
				t.Fatalf("cluster %#x holds no data, but is stored", guest)
			}
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("cluster %#x (at %#x in the file) differs", guest, host)
		}
	})
}

// Disks that are far larger than memory, with data here and there.
func TestQcow2Large(t *testing.T) {
	for _, c := range largeCases() {
		t.Run(c.name, func(t *testing.T) {
			target := build(t, c.disk, "qcow2"+c.options)
			q := parseQcow2(t, target)
			perTable := q.clusterSize / 8
			r := rand.New(rand.NewPCG(3, 4))
			lookup := func(guest int64) {
				guest = min(max(0, guest), c.disk.size-1) &^ (q.clusterSize - 1)
				cluster := guest / q.clusterSize
				want := c.disk.read(guest, q.clusterSize)
				got := make([]byte, q.clusterSize)
				if table := q.entry(q.l1[cluster/perTable], "L1 entry"); table != 0 {
					if host := q.entry(q.uint64s(table+cluster%perTable*8, 1)[0], "L2 entry"); host != 0 {
						got = read(t, target, host, q.clusterSize)
					}
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("cluster at %#x differs", guest)
				}
			}
			runs := c.disk.dataRuns()
			for range 50 {
				run := runs[r.IntN(len(runs))]
				lookup(run.Offset + r.Int64N(run.Length))
				lookup(run.Offset + run.Length)
				lookup(run.Offset - 1)
				lookup(r.Int64N(c.disk.size))
			}
		})
	}
}

func largeCases() []diskCase {
	return []diskCase{
		{"5G", newDisk(5*giB, Run{4*giB - 1, 2}, Run{5*giB - 1, 1}), ""},
		{"2T", newDisk(2*tiB+512, Run{0, 1}, Run{2*tiB - 1, 513}), ""},
		{"3T-2M", newDisk(3*tiB, Run{0, 1}, Run{2*tiB - 1, 2}, Run{3*tiB - 1, 1}), ",cluster_size=2M"},
		{"100G-512", newDisk(100*giB, Run{7, 1}, Run{50 * giB, 70000}, Run{100*giB - 1, 1}), ",cluster_size=512"},
		{"128G-512-limit-v2", newDisk(128*giB, Run{1, 1}, Run{128*giB - 1, 1}), ",cluster_size=512,compat=0.10"},
		{"8T-scattered", randomDisk(8*tiB, 5, 100*kiB, 8*giB), ",compat=v2"},
	}
}

func TestQcow2LimitSizes(t *testing.T) {
	for _, c := range []struct {
		spec string
		most int64
		fits string
	}{
		{"qcow2,cluster_size=512", 128 * giB, "qcow2,cluster_size=1k,compat=1.1"},
		{"qcow2,cluster_size=4096,compat=0.10", 8 * tiB, "qcow2,cluster_size=8k,compat=0.10"},
		{"qcow2", 2048 * tiB, "qcow2,cluster_size=128k,compat=1.1"},
		{"qcow2,cluster_size=2M", 32768 * tiB, ""},
	} {
		t.Run(c.spec, func(t *testing.T) {
			target := build(t, newDisk(c.most, Run{c.most - 1, 1}), c.spec)
			parseQcow2(t, target)

			spec, _ := ParseSpec(c.spec)
			for _, size := range []int64{c.most + 1, 1<<63 - 512, 1<<63 - 1} {
				_, err := New(sizeOnly{size: size}, spec)
				limit, ok := errors.AsType[*LimitError](err)
				if !ok {
					t.Fatalf("%d bytes: %v", size, err)
				}
				if size == c.most+1 && limit.Fits != c.fits {
					t.Errorf("%v: %q would fit, want %q", err, limit.Fits, c.fits)
				}
			}
		})
	}
}

// sizeOnly panics when it is asked for more than its size.
type sizeOnly struct {
	Disk
	size int64
}

func (s sizeOnly) Size() int64 { return s.size }

func TestQcow2LimitRefcounts(t *testing.T) {
	_, err := New(newDisk(128*giB, Run{0, 128 * giB}), Spec{Format: "qcow2", Options: map[string]string{"cluster_size": "512"}})
	limit, ok := errors.AsType[*LimitError](err)
	if !ok || limit.Fits != "qcow2,cluster_size=1k,compat=1.1" {
		t.Fatalf("%v, %+v", err, limit)
	}
	if want := "target format qcow2,cluster_size=512 can't hold this disk of 128G: the refcount table would take "; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %q", err)
	}
	if want := "--format qcow2,cluster_size=1k,compat=1.1 holds it"; limit.Hint() != want {
		t.Errorf("hint %q, want %q", limit.Hint(), want)
	}
	build(t, newDisk(128*giB, Run{0, 128 * giB}), limit.Fits)
}

func TestQcow2LimitFragmentation(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 256 MiB of memory")
	}
	// Just one cluster in each page, so that it is quick.
	const unit = pageBits * 64 * kiB
	d := &disk{size: 70000 * unit}
	for i := range int64(70000) {
		d.extents = append(d.extents, newDisk(unit, Run{0, 1}).extents...)
		d.extents[2*i].Offset += i * unit
		d.extents[2*i+1].Offset += i * unit
	}
	_, err := New(d, Spec{Format: "qcow2"})
	limit, ok := errors.AsType[*LimitError](err)
	if !ok || limit.Fits != "qcow2,cluster_size=2M,compat=1.1" {
		t.Fatalf("%v, %+v", err, limit)
	}
	build(t, d, limit.Fits)
}

func TestQcow2RefusesRanges(t *testing.T) {
	for _, spec := range []string{"raw", "qcow2"} {
		target := build(t, newDisk(1*miB, Run{0, 10}), spec)
		size := target.Size()
		for _, r := range []Run{{-1, 1}, {0, -1}, {0, size + 1}, {size, 1}, {size + 1, 0}, {1, 1<<63 - 1}} {
			if s, err := target.AppendSegments(nil, r.Offset, r.Length); err == nil || s != nil {
				t.Errorf("%s: AppendSegments(%d, %d) = %v, %v", spec, r.Offset, r.Length, s, err)
			}
		}
		if s, err := target.AppendSegments(nil, size, 0); err != nil || s != nil {
			t.Errorf("%s: nothing at the end gives %v, %v", spec, s, err)
		}
	}
}

// FuzzQcow2 lays out a disk whose runs of data are pairs of bytes, gaps and
// lengths, and reads it back.
func FuzzQcow2(f *testing.F) {
	f.Add(uint8(0), false, uint32(100000), []byte{0, 1, 9, 200, 0, 255, 50, 50})
	f.Add(uint8(3), true, uint32(1<<20), []byte{255, 255, 255, 255, 255, 1})
	f.Add(uint8(7), false, uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, clusterBits uint8, old bool, size uint32, gaps []byte) {
		bits := 9 + uint(clusterBits)%8
		total := int64(size) % (1 << 20)
		d := fuzzDisk(total, gaps, 1)
		spec := fmt.Sprintf("qcow2,cluster_size=%d", 1<<bits)
		if old {
			spec += ",compat=0.10"
		}
		target := build(t, d, spec)
		checkContent(t, d, target)
		checkRuns(t, target)
	})
}

func BenchmarkQcow2Layout(b *testing.B) {
	for _, c := range []struct {
		fill string
		disk *disk
	}{
		{"full", newDisk(tiB, Run{0, tiB})},
		{"scattered", randomDisk(tiB, 1, 2*miB, 2*miB)},
	} {
		b.Run("format=qcow2/fill="+c.fill, func(b *testing.B) {
			b.ReportAllocs()
			b.ReportMetric(float64(len(c.disk.extents)), "extents")
			for b.Loop() {
				build(b, c.disk, "qcow2")
			}
		})
	}
}

func BenchmarkQcow2Metadata(b *testing.B) {
	target := build(b, randomDisk(tiB, 1, 2*miB, 2*miB), "qcow2").(*qcow2)
	for _, s := range []struct {
		name       string
		start, end int64
	}{{"refcounts", target.refBlocks, target.l1Table}, {"l1", target.l1Table, target.l2Tables}, {"l2", target.l2Tables, target.data}} {
		for _, size := range []int64{4 * kiB, 1 * miB} {
			b.Run(fmt.Sprintf("table=%s/read=%d", s.name, size), func(b *testing.B) {
				size := min(size, s.end-s.start)
				b.SetBytes(size)
				b.ReportAllocs()
				at := s.start
				for b.Loop() {
					if at+size > s.end {
						at = s.start
					}
					if _, err := target.AppendSegments(nil, at, size); err != nil {
						b.Fatal(err)
					}
					at += size
				}
			})
		}
	}
}
