package convert

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zlib"
)

// vmdkStream writes a streamOptimized VMDK ("Stream-Optimized Compressed Sparse
// Extents" in VMware's Virtual Disk Format 5.0), from its first byte to its
// last, as a tape or a network takes it:
//
//	┌──────────────────────────┐ 0
//	│ SparseExtentHeader       │ says that the grain directory is at the end
//	├──────────────────────────┤ one sector
//	│ embedded descriptor      │ text
//	├──────────────────────────┤ 64 KiB
//	│ grains                   │ each with its marker, deflated, filled up to a
//	│                          │ sector; behind those of a grain table are a
//	│                          │ marker and the table
//	├──────────────────────────┤
//	│ marker, grain directory  │ the sector of each grain table, 0 where the
//	│                          │ disk holds no data
//	├──────────────────────────┤
//	│ marker, footer           │ the header once more, with the directory's place
//	├──────────────────────────┤
//	│ end-of-stream marker     │ a sector of zeros
//	└──────────────────────────┘ size
type vmdkStream struct {
	content    *clusters
	descriptor vmdkDescriptor
}

// vmdkStreamHead is the size in bytes of what is before the grains.
const vmdkStreamHead = 1 << grainBits

func newVMDKStream(src Disk, v values) (*vmdkStream, error) {
	src = vmdkDisk(src)
	content, err := vmdkContent(src, v)
	if err != nil {
		return nil, err
	}
	return &vmdkStream{content, newVMDKDescriptor(src, v, "SPARSE", v["name"].text+vmdkExtension)}, nil
}

// vmdkStreamBound returns the most bytes of a file of so many grains that hold
// data, in so many tables, on a disk of so many grains.
func vmdkStreamBound(data, tables, grains int64) int64 {
	// What does not shrink is stored in blocks of at most 65535 bytes, with 5
	// bytes for each, 6 for the zlib stream, and 12 for the marker.
	const grain = 1<<grainBits + sectorSize
	directory := roundUp(shiftUp(grains, grainTableBits)*4, sectorSize)
	const ends = 4 * sectorSize // three markers and the footer
	return vmdkStreamHead + data*grain + tables*(sectorSize+grainTableBytes) + directory + ends
}

// Bound implements [Packer].
func (s *vmdkStream) Bound() int64 {
	present := s.content.present
	return vmdkStreamBound(present.count(), present.groups(grainTableBits).count(), present.n)
}

// GuestSize implements [Packer].
func (s *vmdkStream) GuestSize() int64 { return s.descriptor.disk }

// Data implements [Packer].
func (s *vmdkStream) Data() int64 { return s.content.size() }

// Pack implements [Packer].
func (s *vmdkStream) Pack(ctx context.Context, w io.WriterAt, done func(int64)) (int64, error) {
	return s.stream(ctx, io.NewOffsetWriter(w, 0), done)
}

// stream writes the file to w and returns its size.
func (s *vmdkStream) stream(ctx context.Context, w io.Writer, done func(int64)) (int64, error) {
	out := &vmdkWriter{
		w:         bufio.NewWriterSize(w, batchSize),
		disk:      s.descriptor.disk,
		directory: make([]byte, roundUp(shiftUp(s.content.present.n, grainTableBits)*4, sectorSize)),
		table:     -1,
	}
	header := newVMDKHeader(3, vmdkHasNewlines|vmdkCompressed|vmdkHasMarkers, s.descriptor.disk)
	const atEnd = ^uint64(0) // GD_AT_END
	binary.LittleEndian.PutUint64(header[56:], atEnd)
	binary.LittleEndian.PutUint64(header[64:], vmdkStreamHead/sectorSize)
	binary.LittleEndian.PutUint16(header[77:], 1) // COMPRESSION_DEFLATE
	if err := out.write(header, []byte(s.descriptor.String()), vmdkStreamHead); err != nil {
		return 0, err
	}
	if err := packClusters(ctx, s.content, newZlib, done, out.add); err != nil {
		return 0, err
	}
	if err := out.finish(header); err != nil {
		return 0, err
	}
	return out.at, out.w.Flush()
}

func newZlib() (compress, error) { return compressWith(zlib.NewWriter(nil)), nil }

// vmdkWriter writes the parts of a stream, each filled up to a sector.
type vmdkWriter struct {
	w         *bufio.Writer
	disk      int64  // virtual size in bytes
	at        int64  // bytes written
	directory []byte // grain directory
	grains    [grainTableBytes]byte
	table     int64 // index of the grain table in grains; -1: there is none
}

// write writes two parts that belong together, filled up to a multiple of unit.
func (w *vmdkWriter) write(a, b []byte, unit int64) error {
	w.w.Write(a)
	w.w.Write(b)
	n := int64(len(a) + len(b))
	_, err := w.w.Write(zeroBlock[:roundUp(n, unit)-n])
	w.at += roundUp(n, unit)
	return err // of any of them, as bufio keeps it
}

// sector returns the next one's number, if grain tables can hold it.
func (w *vmdkWriter) sector() (uint32, error) {
	if w.at >= maxVMDKFile {
		return 0, vmdkLimit(w.disk, vmdkStreamType, "the file passes the 2T that grain tables address")
	}
	return uint32(w.at / sectorSize), nil
}

// add writes a grain.
func (w *vmdkWriter) add(c packedCluster) error {
	const perTable = 1 << grainTableBits
	if table := c.index / perTable; table != w.table {
		if err := w.endTable(); err != nil {
			return err
		}
		w.table = table
		clear(w.grains[:])
	}
	sector, err := w.sector()
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(w.grains[c.index%perTable*4:], sector)
	marker := make([]byte, 0, 12)
	marker = binary.LittleEndian.AppendUint64(marker, uint64(c.index<<grainBits/sectorSize))
	marker = binary.LittleEndian.AppendUint32(marker, uint32(len(c.packed)))
	return w.write(marker, c.packed, sectorSize)
}

// Types of markers for metadata.
const (
	vmdkTableMarker     = 1
	vmdkDirectoryMarker = 2
	vmdkFooterMarker    = 3
)

// metadata writes p with a marker of the given type, and returns its sector.
func (w *vmdkWriter) metadata(kind uint32, p []byte) (uint32, error) {
	marker := make([]byte, sectorSize)
	binary.LittleEndian.PutUint64(marker, uint64(len(p)/sectorSize))
	binary.LittleEndian.PutUint32(marker[12:], kind)
	if err := w.write(marker, nil, sectorSize); err != nil {
		return 0, err
	}
	sector, err := w.sector()
	if err != nil {
		return 0, err
	}
	return sector, w.write(p, nil, sectorSize)
}

// endTable writes the grain table.
func (w *vmdkWriter) endTable() error {
	if w.table < 0 {
		return nil
	}
	sector, err := w.metadata(vmdkTableMarker, w.grains[:])
	binary.LittleEndian.PutUint32(w.directory[w.table*4:], sector)
	return err
}

// finish writes the rest, with the header as the footer.
func (w *vmdkWriter) finish(header []byte) error {
	if err := w.endTable(); err != nil {
		return err
	}
	sector, err := w.metadata(vmdkDirectoryMarker, w.directory)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(header[56:], uint64(sector))
	if _, err := w.metadata(vmdkFooterMarker, header); err != nil {
		return err
	}
	return w.write(zeroBlock[:sectorSize], nil, sectorSize)
}
