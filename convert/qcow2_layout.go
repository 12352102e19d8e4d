package convert

import "fmt"

// Limits of QEMU's block/qcow2.h. An image beyond one of them is well formed,
// but nothing opens it.
const (
	maxQcow2Bits = 21       // MAX_CLUSTER_BITS
	maxL1Table   = 32 << 20 // QCOW_MAX_L1_SIZE, in bytes
	maxRefTable  = 8 << 20  // QCOW_MAX_REFTABLE_SIZE, in bytes
	// maxQcow2Content is half of what the offsets in L1 and L2 entries reach,
	// bits 9 to 55 ("Cluster mapping"): the other half is ample for metadata.
	maxQcow2Content = 1 << 55
)

// maxQcow2Disk returns the greatest virtual size in bytes with clusters of
// 1<<bits bytes, and what limits it in words.
func maxQcow2Disk(bits uint) (most int64, limit string) {
	// An L2 table maps 1<<(bits-3) clusters.
	most = maxL1Table / 8 << (2*bits - 3)
	limit = "an L1 table of " + sizeText(maxL1Table)
	if maxClusters<<bits < most {
		most, limit = maxClusters<<bits, fmt.Sprintf("a map of %d clusters", int64(maxClusters))
	}
	if maxQcow2Content < most {
		most, limit = maxQcow2Content, "an offset of 56 bits"
	}
	return most, fmt.Sprintf("at most %s are possible with %s", sizeText(most), limit)
}

// qcow2Layout says where the parts of a qcow2 file are. Offsets in bytes of the
// file, all of them multiples of the cluster size; a part ends where the next
// one starts.
type qcow2Layout struct {
	refTable, refBlocks, l1Table, l2Tables, data, size int64
}

// placeQcow2 lays out a file in clusters of 1<<bits bytes with an L1 table of
// l1Entries, the given number of L2 tables, and data clusters.
func placeQcow2(bits uint, l1Entries, tables, data int64) qcow2Layout {
	l1 := shiftUp(l1Entries*8, bits)
	fixed := 1 + l1 + tables + data
	table, blocks := refcountClusters(bits, fixed)
	var l qcow2Layout
	next := int64(1)
	for _, part := range []struct {
		start    *int64
		clusters int64
	}{{&l.refTable, table}, {&l.refBlocks, blocks}, {&l.l1Table, l1}, {&l.l2Tables, tables}, {&l.data, data}} {
		*part.start = next << bits
		next += part.clusters
	}
	l.size = next << bits
	return l
}

// refcountClusters returns the clusters of the refcount table and of the
// refcount blocks of a file of so many other clusters.
func refcountClusters(bits uint, others int64) (table, blocks int64) {
	// Refcounts count their own clusters too: add them until they suffice.
	// Each round adds at most what the round before needs, so this ends.
	for {
		needBlocks := shiftUp((others+table+blocks)*2, bits)
		needTable := shiftUp(needBlocks*8, bits)
		if needBlocks == blocks && needTable == table {
			return table, blocks
		}
		blocks, table = needBlocks, needTable
	}
}
