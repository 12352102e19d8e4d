package convert

import "encoding/binary"

const (
	vhdFooterSize = 512  // "Hard Disk Footer Format"
	vhdHeaderSize = 1024 // "Dynamic Disk Header Format"
	vhdVersion    = 0x00010000
	vhdFixed      = 2 // "Disk Type"
	vhdDynamic    = 3
	// vhdNowhere is the data offset of what has none.
	vhdNowhere = 0xffffffffffffffff
	// vhdNotThere is the BAT entry of a block that is not in the file.
	vhdNotThere = 0xffffffff
)

// vhdFooter says what "Hard Disk Footer Format" says.
type vhdFooter struct {
	disk     int64 // virtual size in bytes
	geometry vhdGeometry
	dynamic  bool
	id       uuid
}

// bytes returns the footer. The time stamp is zero, which is the year 2000, so
// that the file is the same each time.
//
// Readers find out by the creator whether the size of the disk is that of the
// geometry or the current size. Hyper-V's stands for the current size in all of
// them (see vpc_open in QEMU's block/vpc.c), and geometries that a size was
// rounded up to agree with it.
func (f vhdFooter) bytes() []byte {
	b := make([]byte, vhdFooterSize)
	be := binary.BigEndian
	copy(b, "conectix")                  // cookie
	be.PutUint32(b[8:], 2)               // features: reserved, always set
	be.PutUint32(b[12:], vhdVersion)     // file format version
	be.PutUint64(b[16:], vhdNowhere)     // data offset
	copy(b[28:], "win ")                 // creator application
	be.PutUint32(b[32:], 0x00060001)     // creator version: of Windows 7
	copy(b[36:], "Wi2k")                 // creator host OS: Windows
	be.PutUint64(b[40:], uint64(f.disk)) // original size
	be.PutUint64(b[48:], uint64(f.disk)) // current size
	be.PutUint16(b[56:], f.geometry.cylinders)
	b[58], b[59] = f.geometry.heads, f.geometry.sectors
	be.PutUint32(b[60:], vhdFixed)
	if f.dynamic {
		be.PutUint64(b[16:], vhdFooterSize) // where the dynamic disk header is
		be.PutUint32(b[60:], vhdDynamic)
	}
	copy(b[68:], f.id[:])
	be.PutUint32(b[64:], vhdChecksum(b))
	return b
}

// vhdDynamicHeader returns the dynamic disk header for a BAT of blocks entries.
// Fields that are not set are zero: no parent.
func vhdDynamicHeader(blocks int64) []byte {
	b := make([]byte, vhdHeaderSize)
	be := binary.BigEndian
	copy(b, "cxsparse")
	be.PutUint64(b[8:], vhdNowhere)       // data offset
	be.PutUint64(b[16:], vhdBAT)          // table offset
	be.PutUint32(b[24:], vhdVersion)      // header version
	be.PutUint32(b[28:], uint32(blocks))  // max table entries
	be.PutUint32(b[32:], 1<<vhdBlockBits) // block size
	be.PutUint32(b[36:], vhdChecksum(b))
	return b
}

// vhdChecksum is the one's complement of the sum of all bytes, with zeros in
// place of the checksum itself.
func vhdChecksum(b []byte) uint32 {
	var sum uint32
	for _, c := range b {
		sum += uint32(c)
	}
	return ^sum
}

// fillBAT makes the BAT, which is filled up to a sector with unused entries.
func (t *vhd) fillBAT(p []byte, off int64) {
	entries := roundUp(t.present.n*4, sectorSize) / 4
	first := off / 4
	place := t.present.rank(min(t.present.n, first))
	for i := first; i < min(entries, first+int64(len(p))/4); i++ {
		entry := uint32(vhdNotThere)
		if i < t.present.n && t.present.has(i) {
			bitmap := t.bodyStart() + place*vhdStride + vhdAlign - vhdBitmapSize
			entry = uint32(bitmap / sectorSize)
			place++
		}
		binary.BigEndian.PutUint32(p[(i-first)*4:], entry)
	}
}
