package convert

import (
	"errors"
	"fmt"
)

// qcow2 is a qcow2 image without snapshots and without anything compressed, each
// cluster of the file in use exactly once. It is standalone, or a delta: an
// image with a backing file, which holds only the clusters that differ from that.
// Names and sections are those of QEMU's docs/interop/qcow2.txt:
//
//	┌──────────────────────┐ 0
//	│ header               │ "Header"; one cluster. The header extensions are
//	│                      │ just their end mark, which is zeros; in a delta the
//	│                      │ format of the backing file, and behind them its name
//	├──────────────────────┤ refTable
//	│ refcount table       │ "Host cluster management"; 8 bytes for each
//	│                      │ refcount block
//	├──────────────────────┤ refBlocks
//	│ refcount blocks      │ 2 bytes for each cluster of the file, all 1
//	├──────────────────────┤ l1Table
//	│ L1 table             │ "Cluster mapping"; 8 bytes for each L2 table that
//	│                      │ the disk can have, zero where it holds no data, in a
//	│                      │ delta: no changes
//	├──────────────────────┤ l2Tables
//	│ L2 tables            │ one cluster each, 8 bytes for each cluster of the
//	│                      │ disk; in the disk's order. In a delta a zero leads to
//	│                      │ the backing file, and a one is a cluster of zeros
//	├──────────────────────┤ data
//	│ data clusters        │ in the disk's order
//	└──────────────────────┘ size
//
// Every part starts at a cluster, and is filled up with zeros to a cluster. An
// empty disk of size zero has neither L1 table, nor L2 tables, nor data.
type qcow2 struct {
	// Read only after layoutQcow2.
	assembly
	qcow2Layout
	version int
	bits    uint    // log2 of the cluster size in bytes
	backing Backing // of a delta; else empty
	// mapped has a bit for each cluster of the disk: has it an L2 entry? All that
	// content holds are among them; the others are zeros, in a delta.
	mapped *bitmap
	// tables has a bit for each L1 entry: does its L2 table exist?
	tables  *bitmap
	content *clusters
}

var qcow2Format = format{
	name:      "qcow2",
	extension: ".qcow2",
	about:     "QEMU, KVM",
	largest:   sizeText(maxQcow2Content) + ", depends on cluster_size",
	options: []option{
		// "Header": cluster_bits is at least 9, and QEMU takes at most 21.
		{name: "cluster_size", initial: "64k", least: 512, most: 2 << 20, about: "larger ones need less metadata, smaller ones store less empty space"},
		{name: "compat", initial: "1.1", choices: []string{"0.10", "1.1", "v2", "v3"}, about: "0.10 or v2 for readers from before 2012"},
		{name: "compression", alias: "compression_type", initial: "none", choices: []string{"none", "deflate", "zlib", "zstd"}},
	},
	check: func(v values) *SpecError {
		if v["compression"].text == "zstd" && qcow2Version(v) < 3 {
			return &SpecError{
				fmt.Errorf("compression=zstd is not possible with compat=%s", v["compat"].text),
				"leave out compat, or use compression=deflate",
			}
		}
		return nil
	},
	layout: func(src Disk, v values) (Target, error) { return layoutQcow2(src, v) },
	packs:  isPackedQcow2,
	pack:   newQcow2Packer,
	full: func(size int64, v values) int64 {
		bits := log2(v["cluster_size"].bytes)
		l1Entries := shiftUp(size, 2*bits-3)
		return placeQcow2(bits, l1Entries, l1Entries, shiftUp(size, bits)).size
	},
}

// qcow2Version returns the version of the header.
func qcow2Version(v values) int {
	if compat := v["compat"].text; compat == "0.10" || compat == "v2" {
		return 2
	}
	return 3
}

func layoutQcow2(src Disk, v values) (*qcow2, error) {
	if err := checkQcow2Disk(src.Size(), v); err != nil {
		return nil, err
	}
	content, err := newClusters(src, log2(v["cluster_size"].bytes))
	if errors.Is(err, errFragmented) {
		return nil, fragmentedQcow2(src.Size(), v)
	}
	if err != nil {
		return nil, err
	}
	return placeQcow2Content(src.Size(), content, content.present, Backing{}, v)
}

// placeQcow2Content lays out a disk of size bytes with the clusters of content
// and, in a delta, the other ones that are mapped, as zeros.
func placeQcow2Content(size int64, content *clusters, mapped *bitmap, b Backing, v values) (*qcow2, error) {
	t := &qcow2{
		assembly: assembly{disk: roundUp(size, sectorSize), body: content},
		version:  qcow2Version(v),
		bits:     content.bits,
		backing:  b,
		mapped:   mapped,
		tables:   mapped.groups(content.bits - 3),
		content:  content,
	}
	t.qcow2Layout = placeQcow2(t.bits, t.tables.n, t.tables.count(), content.present.count())
	if table := t.refBlocks - t.refTable; table > maxRefTable {
		limit := fmt.Sprintf("the refcount table would take %s, at most %s are allowed", sizeText(table), sizeText(maxRefTable))
		return nil, qcow2Limit(size, v, limit, func(uint) bool { return true })
	}
	t.head = t.metadata()
	return t, nil
}

// checkQcow2Disk refuses a disk of size bytes that is too large.
func checkQcow2Disk(size int64, v values) error {
	most, limit := maxQcow2Disk(log2(v["cluster_size"].bytes))
	if size <= most {
		return nil
	}
	return qcow2Limit(size, v, limit, func(bits uint) bool {
		most, _ := maxQcow2Disk(bits)
		return size <= most
	})
}

// fragmentedQcow2 is errFragmented for a user.
func fragmentedQcow2(size int64, v values) error {
	return qcow2Limit(size, v, errFragmented.Error(), func(bits uint) bool { return bits == maxQcow2Bits })
}

// qcow2Limit names the limit that a disk of size bytes passes, and the next
// larger clusters for which fit holds.
func qcow2Limit(size int64, v values, limit string, fit func(bits uint) bool) error {
	cluster := v["cluster_size"]
	return &LimitError{
		Target: "qcow2,cluster_size=" + cluster.text,
		Disk:   size,
		Limit:  limit,
		Fits:   largerClusters(log2(cluster.bytes), v["compat"].text, fit),
	}
}

// largerClusters returns the target with the smallest clusters above 1<<bits
// bytes that fit; empty when none do.
func largerClusters(bits uint, compat string, fit func(bits uint) bool) string {
	for bits++; bits <= maxQcow2Bits; bits++ {
		if fit(bits) {
			return fmt.Sprintf("qcow2,cluster_size=%s,compat=%s", sizeText(1<<bits), compat)
		}
	}
	return ""
}
