package convert

import "encoding/binary"

const (
	// copied says that the refcount of the cluster is exactly one (bit 63 of L1
	// and L2 entries, "Cluster mapping").
	copied = 1 << 63
	// allZero says that the cluster reads as zeros, whatever the backing file
	// has there (bit 0 of L2 entries from version 3 on, "Cluster mapping").
	allZero = 1
	// refcountOrder is that of refcounts of 16 bits, the only ones of version 2.
	refcountOrder = 4
	// headerLength of version 3 without the compression type, which would be
	// the default one.
	headerLength = 104
)

// metadata returns the sections before the data, in the order of the file.
func (t *qcow2) metadata() []section {
	blocks := (t.l1Table - t.refBlocks) >> t.bits
	return []section{
		newLiteral(0, t.header().bytes(), t.refTable),
		newSection(t.refTable, blocks*8, t.refBlocks, t.fillRefTable),
		newSection(t.refBlocks, t.size>>t.bits*2, t.l1Table, t.fillRefBlocks),
		newSection(t.l1Table, t.tables.n*8, t.l2Tables, t.fillL1),
		newSection(t.l2Tables, t.data-t.l2Tables, t.data, t.fillL2),
	}
}

// qcow2Header is the header ("Header"). Fields of it that are not here are zero:
// no encryption, no snapshots.
type qcow2Header struct {
	version int
	bits    uint
	disk    int64 // virtual size in bytes
	// Offsets in bytes; refClusters is the length of the refcount table.
	l1Entries, l1Table, refTable, refClusters int64
	// zstd: compressed clusters are of zstd, which version 3 can say.
	zstd    bool
	backing Backing // empty: there is none
}

func (t *qcow2) header() qcow2Header {
	return qcow2Header{
		version:     t.version,
		bits:        t.bits,
		disk:        t.disk,
		l1Entries:   t.tables.n,
		l1Table:     t.l1Table,
		refTable:    t.refTable,
		refClusters: (t.refBlocks - t.refTable) >> t.bits,
		backing:     t.backing,
	}
}

func (h qcow2Header) bytes() []byte {
	p := make([]byte, headerLength)
	copy(p, "QFI\xfb")
	binary.BigEndian.PutUint32(p[4:], uint32(h.version))
	binary.BigEndian.PutUint32(p[20:], uint32(h.bits))
	binary.BigEndian.PutUint64(p[24:], uint64(h.disk))
	binary.BigEndian.PutUint32(p[36:], uint32(h.l1Entries))
	binary.BigEndian.PutUint64(p[40:], uint64(h.l1Table))
	binary.BigEndian.PutUint64(p[48:], uint64(h.refTable))
	binary.BigEndian.PutUint32(p[56:], uint32(h.refClusters))
	if h.version >= 3 {
		binary.BigEndian.PutUint32(p[96:], refcountOrder)
		binary.BigEndian.PutUint32(p[100:], headerLength)
	}
	if h.zstd {
		const compressionType = 1 << 3 // bit of the incompatible features
		binary.BigEndian.PutUint64(p[72:], compressionType)
		binary.BigEndian.PutUint32(p[100:], headerLength+8)
		p = append(p, 1, 0, 0, 0, 0, 0, 0, 0)
	}
	if h.backing != (Backing{}) {
		p = h.backing.appendTo(p)
	}
	return p
}

// appendTo appends what a header p says of the backing file: the extension with
// its format, the end of the extensions, and its name.
func (b Backing) appendTo(p []byte) []byte {
	p = binary.BigEndian.AppendUint32(p, backingFormatExtension)
	p = binary.BigEndian.AppendUint32(p, uint32(len(b.Format)))
	p = append(p, b.Format...)
	p = append(p, make([]byte, roundUp(int64(len(p)), 8)-int64(len(p))+8)...)
	name := b.recorded()
	binary.BigEndian.PutUint64(p[8:], uint64(len(p)))
	binary.BigEndian.PutUint32(p[16:], uint32(len(name)))
	return append(p, name...)
}

// fillRefTable makes the refcount table: the offsets of the refcount blocks.
func (t *qcow2) fillRefTable(p []byte, off int64) {
	at := t.refBlocks + off/8<<t.bits
	for ; len(p) > 0 && at < t.l1Table; at += 1 << t.bits {
		binary.BigEndian.PutUint64(p, uint64(at))
		p = p[8:]
	}
}

// fillRefBlocks makes the refcount blocks: a one for each cluster of the file.
func (t *qcow2) fillRefBlocks(p []byte, off int64) {
	ones := t.size>>t.bits*2 - off
	for i := 1; i < len(p) && int64(i) < ones; i += 2 {
		p[i] = 1
	}
}

// fillL1 makes the L1 table: the offsets of the L2 tables that exist.
func (t *qcow2) fillL1(p []byte, off int64) {
	first := off / 8
	last := min(t.tables.n, first+int64(len(p))/8)
	if first < last {
		putEntries(p, t.tables, first, last, t.l2Tables, t.bits)
	}
}

// fillL2 makes L2 tables: the offsets of the data clusters, and marks for the
// others that are mapped.
func (t *qcow2) fillL2(p []byte, off int64) {
	entries := int64(1) << (t.bits - 3) // of a table
	for len(p) > 0 {
		table, entry := off>>t.bits, off>>3&(entries-1)
		n := min(int64(len(p))/8, entries-entry)
		first := t.tables.selectOne(table)*entries + entry
		// The last table may reach past the end of the disk.
		if last := min(t.content.present.n, first+n); first < last {
			if t.mapped != t.content.present {
				putZeros(p, t.mapped, first, last)
			}
			putEntries(p, t.content.present, first, last, t.data, t.bits)
		}
		p = p[n*8:]
		off += n * 8
	}
}

// putEntries writes the L1 or L2 entries [first, last) into p: what the ones of
// b stand for lies packed from start on, in clusters of 1<<bits bytes.
func putEntries(p []byte, b *bitmap, first, last, start int64, bits uint) {
	at := start + b.rank(first)<<bits
	for i := b.nextOne(first); i < last; i++ {
		if b.has(i) {
			binary.BigEndian.PutUint64(p[(i-first)*8:], uint64(at)|copied)
			at += 1 << bits
		}
	}
}

// putZeros writes the L2 entries [first, last) into p: zeros for the ones of b.
func putZeros(p []byte, b *bitmap, first, last int64) {
	for i := b.nextOne(first); i < last; i++ {
		if b.has(i) {
			binary.BigEndian.PutUint64(p[(i-first)*8:], allZero)
		}
	}
}
