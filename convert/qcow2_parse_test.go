package convert

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// parsedQcow2 is what a strict reader of qcow2 makes of a target. It knows
// nothing of the layout: it follows the tables as the specification says.
type parsedQcow2 struct {
	t           testing.TB
	target      Target
	version     uint32
	clusterSize int64
	size        int64
	l1          []uint64
	refTable    int64
	refClusters int64
	backing     Backing // empty in a standalone image
}

func (q *parsedQcow2) uint64s(off, n int64) []uint64 {
	q.t.Helper()
	out := make([]uint64, 0, n)
	for p := range slices.Chunk(read(q.t, q.target, off, n*8), 8) {
		out = append(out, binary.BigEndian.Uint64(p))
	}
	return out
}

func parseQcow2(t testing.TB, target Target) *parsedQcow2 {
	t.Helper()
	h := read(t, target, 0, 512)
	q := &parsedQcow2{
		t: t, target: target,
		version:     binary.BigEndian.Uint32(h[4:]),
		clusterSize: 1 << binary.BigEndian.Uint32(h[20:]),
		size:        int64(binary.BigEndian.Uint64(h[24:])),
		refTable:    int64(binary.BigEndian.Uint64(h[48:])),
		refClusters: int64(binary.BigEndian.Uint32(h[56:])),
	}
	zeros := []int{32, 35, 60, 63, 64, 71} // encryption, snapshots
	extensions := 72
	if q.version == 3 {
		zeros = append(zeros, 72, 79, 80, 87, 88, 95) // features
		if order, length := binary.BigEndian.Uint32(h[96:]), binary.BigEndian.Uint32(h[100:]); order != 4 || length != 104 {
			t.Fatalf("refcount order %d, header length %d", order, length)
		}
		extensions = 104
	}
	if offset, length := binary.BigEndian.Uint64(h[8:]), binary.BigEndian.Uint32(h[16:]); offset != 0 {
		if binary.BigEndian.Uint32(h[extensions:]) != 0xe2792aca {
			t.Fatalf("no backing format first among the extensions: %x", h[extensions:])
		}
		format := h[extensions+8:][:binary.BigEndian.Uint32(h[extensions+4:])]
		q.backing = Backing{string(read(t, target, int64(offset), int64(length))), string(format)}
		extensions += 8 + (len(format)+7)&^7
		if offset < uint64(extensions)+8 || int64(offset)+int64(length) > q.clusterSize {
			t.Fatalf("the backing file's name at %d, +%d, extensions until %d", offset, length, extensions+8)
		}
	} else {
		zeros = append(zeros, 8, 15, 16, 19)
	}
	for i := range 8 {
		zeros = append(zeros, extensions+i)
	}
	for _, i := range zeros {
		if h[i] != 0 {
			t.Fatalf("byte %d of the header is %#x", i, h[i])
		}
	}
	if string(h[:4]) != "QFI\xfb" || target.Size()%q.clusterSize != 0 || q.size%512 != 0 {
		t.Fatalf("magic %q, file of %d bytes, disk of %d bytes", h[:4], target.Size(), q.size)
	}
	l1Size := int64(binary.BigEndian.Uint32(h[36:]))
	if need := -(-q.size / (q.clusterSize * q.clusterSize / 8)); l1Size < need {
		t.Fatalf("%d L1 entries, %d needed", l1Size, need)
	}
	q.l1 = q.uint64s(q.offset(binary.BigEndian.Uint64(h[40:]), "L1 table"), l1Size)
	q.offset(uint64(q.refTable), "refcount table")
	return q
}

// offset checks a cluster aligned offset into the file, or, for a table of no
// entries, to its end.
func (q *parsedQcow2) offset(off uint64, what string) int64 {
	q.t.Helper()
	if off%uint64(q.clusterSize) != 0 || off > uint64(q.target.Size()) {
		q.t.Fatalf("%s at %#x in a file of %#x", what, off, q.target.Size())
	}
	return int64(off)
}

// entry checks an L1 or L2 entry and returns its offset; 0 when there is none.
func (q *parsedQcow2) entry(e uint64, what string) int64 {
	q.t.Helper()
	if e == 0 {
		return 0
	}
	if e>>63 != 1 || e&^(1<<63|0x00fffffffffffe00) != 0 || e<<1 == 0 {
		q.t.Fatalf("%s is %#x", what, e)
	}
	return q.offset(e&^(1<<63), what)
}

// check visits all that is in use, compares it with the refcounts and calls
// visit for each cluster of the disk with its offset in the file, 0 if it has
// none, -1 if it is a cluster of zeros, which only a delta may have.
func (q *parsedQcow2) check(visit func(guest, host int64)) {
	q.t.Helper()
	used := make([]uint16, q.target.Size()/q.clusterSize)
	use := func(off, bytes int64) {
		for end := off + bytes; off < end; off += q.clusterSize {
			used[off/q.clusterSize]++
		}
	}
	use(0, 1)
	use(q.refTable, q.refClusters*q.clusterSize)
	h := read(q.t, q.target, 40, 8)
	use(int64(binary.BigEndian.Uint64(h)), int64(len(q.l1))*8)
	perTable := q.clusterSize / 8
	for i, e := range q.l1 {
		table := q.entry(e, fmt.Sprintf("L1 entry %d", i))
		guest := int64(i) * perTable * q.clusterSize
		if table == 0 {
			for range perTable {
				if guest < q.size {
					visit(guest, 0)
				}
				guest += q.clusterSize
			}
			continue
		}
		use(table, 1)
		for j, e := range q.uint64s(table, perTable) {
			var host int64
			if e == 1 && q.backing.Name != "" {
				host = -1
			} else if host = q.entry(e, fmt.Sprintf("L2 entry %d of table %d", j, i)); host != 0 {
				use(host, 1)
			}
			if guest < q.size {
				visit(guest, host)
			} else if host != 0 {
				q.t.Fatalf("cluster %#x past the end of the disk", guest)
			}
			guest += q.clusterSize
		}
	}
	blocks := q.uint64s(q.refTable, q.refClusters*perTable)
	for _, b := range blocks {
		if b != 0 {
			use(q.offset(b, "refcount block"), 1)
		}
	}
	perBlock := q.clusterSize / 2
	for i, b := range blocks {
		if b == 0 {
			continue
		}
		p := read(q.t, q.target, int64(b), q.clusterSize)
		for j := range perBlock {
			cluster, count := int64(i)*perBlock+j, binary.BigEndian.Uint16(p[2*j:])
			switch {
			case cluster >= int64(len(used)):
				if count != 0 {
					q.t.Fatalf("refcount of cluster %d past the end of the file is %d", cluster, count)
				}
			case count != used[cluster] || count != 1:
				q.t.Fatalf("refcount of cluster %d is %d, it is in use %d times", cluster, count, used[cluster])
			default:
				used[cluster] = 0
			}
		}
	}
	for i, n := range used {
		if n != 0 {
			q.t.Fatalf("cluster %d has no refcount", i)
		}
	}
}
