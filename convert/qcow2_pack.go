package convert

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// qcow2Packer writes a qcow2 image of compressed clusters ("Compressed Clusters
// Descriptor" in QEMU's docs/interop/qcow2.txt). Names are those of [qcow2]:
//
//	┌──────────────────────┐ 0
//	│ header               │ one cluster
//	├──────────────────────┤ one cluster
//	│ data                 │ in the disk's order. Compressed clusters are
//	│                      │ packed without gaps, those that do not shrink
//	│                      │ are whole host clusters; behind those of an L2
//	│                      │ table is the table itself
//	├──────────────────────┤
//	│ L1 table             │
//	├──────────────────────┤
//	│ refcount table       │
//	├──────────────────────┤
//	│ refcount blocks      │ a host cluster counts the compressed clusters
//	│                      │ that have a part in it
//	└──────────────────────┘ size
//
// So all is written once and in order, the header last.
type qcow2Packer struct {
	content *clusters
	mapped  *bitmap // as in qcow2; nil unless it is a delta
	bits    uint
	bound   int64
	header  qcow2Header
	codec   func() (compress, error)
}

// isPackedQcow2 says whether the values ask for compression.
func isPackedQcow2(v values) bool { return v["compression"].text != "none" }

func newQcow2Packer(src Disk, v values) (Packer, error) {
	// A file without compression tells the limits.
	plain, err := layoutQcow2(src, v)
	if err != nil {
		return nil, err
	}
	return packQcow2(plain, v), nil
}

// packQcow2 prepares to write what plain has, in compressed form.
func packQcow2(plain *qcow2, v values) *qcow2Packer {
	p := &qcow2Packer{
		content: plain.content,
		bits:    plain.bits,
		// Each cluster takes at most a host cluster more: packed or whole.
		bound:  plain.Size(),
		header: plain.header(),
		codec:  newQcow2Deflate,
	}
	if plain.backing != (Backing{}) {
		p.mapped = plain.mapped
	}
	if v["compression"].text == "zstd" {
		p.header.zstd = true
		p.codec = newZstd
	}
	return p
}

// Bound implements [Packer].
func (p *qcow2Packer) Bound() int64 { return p.bound }

// GuestSize implements [Packer].
func (p *qcow2Packer) GuestSize() int64 { return p.header.disk }

// Data implements [Packer].
func (p *qcow2Packer) Data() int64 { return p.content.size() }

// Pack implements [Packer].
func (p *qcow2Packer) Pack(ctx context.Context, w io.WriterAt, done func(int64)) (int64, error) {
	out := &qcow2Writer{
		gatherer: gatherer{w: w},
		bits:     p.bits,
		l1:       make([]byte, p.header.l1Entries*8),
		table:    -1,
		mapped:   p.mapped,
	}
	if p.mapped != nil {
		out.tables = p.mapped.groups(p.bits - 3)
	}
	if _, err := out.allocate(1); err != nil { // the header
		return 0, err
	}
	if err := packClusters(ctx, p.content, p.codec, done, out.add); err != nil {
		return 0, err
	}
	return out.finish(p.header)
}

// newQcow2Deflate returns a compressor for raw deflate with a window of 4 KiB:
// QEMU inflates with windowBits -12, and fails at matches from farther away.
func newQcow2Deflate() (compress, error) {
	const window = 1 << 12
	w, err := flate.NewWriterWindow(nil, window)
	if err != nil {
		return nil, err
	}
	return compressWith(w), nil
}

func newZstd() (compress, error) {
	// On programs and texts the fastest level makes files a few percent larger
	// than the default level of zstd's library, in two thirds of the time.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	return func(dst, p []byte) ([]byte, error) { return enc.EncodeAll(p, dst), nil }, nil
}

// qcow2Writer places the parts of a packed image. Offsets in bytes of the file.
type qcow2Writer struct {
	gatherer
	bits uint
	// refcounts has a block for each so many host clusters as it counts, in
	// the form of the file.
	refcounts [][]byte
	next      int64 // the first host cluster that is free
	// packed is the end of the compressed cluster that was written last.
	packed int64

	l1    []byte
	l2    []byte
	table int64 // index of the L2 table in l2; -1: there is none

	// Of a delta: mapped as in qcow2, and the L2 tables that there are for it.
	// Both are nil otherwise.
	mapped, tables *bitmap
}

// count adds one to the refcount of a host cluster. It stays below 65536: what
// compresses best, 2 MiB of one byte as zstd, takes more than 64 bytes.
func (w *qcow2Writer) count(cluster int64) {
	blockBits := w.bits - 1 // a refcount has 2 bytes
	for int64(len(w.refcounts)) <= cluster>>blockBits {
		w.refcounts = append(w.refcounts, make([]byte, 1<<w.bits))
	}
	p := w.refcounts[cluster>>blockBits][cluster&(1<<blockBits-1)*2:]
	binary.BigEndian.PutUint16(p, binary.BigEndian.Uint16(p)+1)
}

// allocate returns the offset of n host clusters that are used once.
func (w *qcow2Writer) allocate(n int64) (int64, error) {
	first := w.next
	if first+n > maxQcow2Content>>w.bits {
		return 0, fmt.Errorf("target format qcow2: the file passes %s", sizeText(maxQcow2Content))
	}
	w.next += n
	for i := first; i < w.next; i++ {
		w.count(i)
	}
	return first << w.bits, nil
}

// append writes p into host clusters of its own and returns its offset.
func (w *qcow2Writer) append(p []byte) (int64, error) {
	off, err := w.allocate(shiftUp(int64(len(p)), w.bits))
	if err != nil {
		return 0, err
	}
	return off, w.writeAt(p, off)
}

// add writes a cluster of the disk.
func (w *qcow2Writer) add(c packedCluster) error {
	perTable := int64(1) << (w.bits - 3)
	if err := w.turnTo(c.index / perTable); err != nil {
		return err
	}
	entry, err := w.store(c)
	if err != nil {
		return err
	}
	binary.BigEndian.PutUint64(w.l2[c.index%perTable*8:], entry)
	return nil
}

// turnTo makes l2 the table of that index, not less than the one it is. Tables
// in between are written where a delta has clusters of zeros.
func (w *qcow2Writer) turnTo(table int64) error {
	for w.table < table {
		if err := w.endTable(); err != nil {
			return err
		}
		next := table
		if w.tables != nil {
			next = min(table, w.tables.nextOne(w.table+1))
		}
		w.table = next
		w.l2 = resize(w.l2, 1<<w.bits)
		clear(w.l2)
		if w.mapped != nil {
			perTable := int64(1) << (w.bits - 3)
			putZeros(w.l2, w.mapped, next*perTable, min(w.mapped.n, (next+1)*perTable))
		}
	}
	return nil
}

// lastTable returns the index of the last L2 table of a delta.
func (w *qcow2Writer) lastTable() int64 {
	if w.tables == nil || w.tables.count() == 0 {
		return -1
	}
	return w.tables.selectOne(w.tables.count() - 1)
}

// store writes the content of a cluster and returns its L2 entry.
func (w *qcow2Writer) store(c packedCluster) (uint64, error) {
	if len(c.packed) >= len(c.plain) {
		off, err := w.append(c.plain)
		return uint64(off) | copied, err
	}
	n := int64(len(c.packed))
	off, err := w.place(n)
	if err != nil {
		return 0, err
	}
	// "Compressed Clusters Descriptor": bits 0 to x-1 are the offset, the rest
	// up to bit 61 the number of sectors beyond the first.
	x := 62 - (w.bits - 8)
	if off+n > 1<<x {
		return 0, fmt.Errorf("target format qcow2: compressed clusters lie past %s", sizeText(1<<x))
	}
	sectors := (off+n-1)/sectorSize - off/sectorSize
	return 1<<62 | uint64(sectors)<<x | uint64(off), w.writeAt(c.packed, off)
}

// place returns the offset for a compressed cluster of n bytes, less than a
// cluster: behind the one before, if the host clusters there are one run.
func (w *qcow2Writer) place(n int64) (int64, error) {
	off := w.packed
	end := roundUp(off, 1<<w.bits)
	if end-off < n {
		if end != w.next<<w.bits {
			off = w.next << w.bits
		}
		if _, err := w.allocate(1); err != nil {
			return 0, err
		}
		if off < end {
			w.count(off >> w.bits)
		}
	} else {
		w.count(off >> w.bits)
	}
	w.packed = off + n
	return off, nil
}

// endTable writes the L2 table.
func (w *qcow2Writer) endTable() error {
	if w.table < 0 {
		return nil
	}
	off, err := w.append(w.l2)
	binary.BigEndian.PutUint64(w.l1[w.table*8:], uint64(off)|copied)
	return err
}

// finish writes the rest and returns the size of the file.
func (w *qcow2Writer) finish(h qcow2Header) (int64, error) {
	err := w.turnTo(w.lastTable())
	if err == nil {
		err = w.endTable()
	}
	if err != nil {
		return 0, err
	}
	if h.l1Table, err = w.append(w.l1); err != nil {
		return 0, err
	}
	// Refcounts count their own clusters too; see placeQcow2.
	table, blocks := refcountClusters(w.bits, w.next)
	refTable, err := w.allocate(table + blocks)
	if err != nil {
		return 0, err
	}
	h.refTable, h.refClusters = refTable, table
	at := refTable + table<<w.bits
	offsets := make([]byte, 0, table<<w.bits)
	for i := range blocks {
		offsets = binary.BigEndian.AppendUint64(offsets, uint64(at+i<<w.bits))
	}
	if err := w.writeAt(offsets, refTable); err != nil {
		return 0, err
	}
	for i, block := range w.refcounts {
		if err := w.writeAt(block, at+int64(i)<<w.bits); err != nil {
			return 0, err
		}
	}
	if err := w.writeAt(h.bytes(), 0); err != nil {
		return 0, err
	}
	return w.next << w.bits, w.flush()
}
