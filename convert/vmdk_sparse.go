package convert

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// grainBits is log2 of the size in bytes of a grain, the unit in which a
	// sparse extent holds data: 64 KiB, as all of VMware's and QEMU's have.
	grainBits = 16
	// grainTableBits is log2 of the entries of a grain table, which are 512 in
	// all hosted sparse extents ("Grain Table").
	grainTableBits  = 9
	grainTableBytes = 4 << grainTableBits
	// vmdkDescriptorSectors is the room for an embedded descriptor, which is
	// rewritten in place; the offset of the first is 1.
	vmdkDescriptorSectors = 20
	// maxVMDKDisk is the greatest virtual size in bytes: QEMU refuses a grain
	// directory of more than 32 Mi entries (block/vmdk.c, L1 size).
	maxVMDKDisk = 32 << 20 << (grainTableBits + grainBits)
	// maxVMDKFile is what a grain table can address: 32 bits of sectors.
	maxVMDKFile = sectorSize << 32
)

// vmdkSparse is a monolithicSparse VMDK, a hosted sparse extent with its
// descriptor in it. Names are those of VMware's Virtual Disk Format 5.0:
//
//	┌──────────────────────────┐ 0
//	│ SparseExtentHeader       │ "Hosted Sparse Extent Header"; one sector
//	├──────────────────────────┤ one sector
//	│ embedded descriptor      │ text; 20 sectors
//	├──────────────────────────┤ redundant.directory
//	│ redundant grain directory│ as the grain directory below, for the
//	├──────────────────────────┤ redundant grain tables
//	│ redundant grain tables   │ as the grain tables below
//	├──────────────────────────┤ primary.directory
//	│ grain directory          │ 4 bytes for each grain table: its sector
//	├──────────────────────────┤ primary.tables
//	│ grain tables             │ 4 bytes for each grain of the disk: its sector,
//	│                          │ 0 where it holds no data
//	├──────────────────────────┤ data
//	│ grains                   │ 64 KiB each, in the disk's order
//	└──────────────────────────┘ size
//
// All grain tables exist, as a writer needs them; those of grains without data
// are holes. A directory ends, and its tables start, at a multiple of 4 KiB; so
// that the tables follow their directory without a gap, which some readers take
// for granted, the gap is in front of it. The grains start at a multiple of
// their size.
type vmdkSparse struct {
	// Read only after layoutVMDKSparse.
	assembly
	vmdkLayout
	content *clusters
}

// vmdkLayout says where the parts of a sparse extent are, in bytes.
type vmdkLayout struct {
	redundant, primary grainMap
	data               int64
}

// grainMap is a grain directory and, right behind it, its grain tables.
type grainMap struct{ directory, tables int64 }

// placeVMDK lays out the metadata for a disk of so many grains.
func placeVMDK(grains int64) (l vmdkLayout) {
	tables := shiftUp(grains, grainTableBits)
	directory := roundUp(tables*4, sectorSize)
	at := int64(1+vmdkDescriptorSectors) * sectorSize
	for _, m := range []*grainMap{&l.redundant, &l.primary} {
		m.tables = roundUp(at+directory, holeUnit)
		m.directory = m.tables - directory
		at = m.tables + tables*grainTableBytes
	}
	l.data = roundUp(at, 1<<grainBits)
	return l
}

func layoutVMDKSparse(src Disk, v values) (*vmdkSparse, error) {
	content, err := vmdkContent(src, v)
	if err != nil {
		return nil, err
	}
	t := &vmdkSparse{vmdkLayout: placeVMDK(content.present.n), content: content}
	if size := t.data + content.size(); size > maxVMDKFile {
		return nil, vmdkLimit(src.Size(), v["subformat"].text, fmt.Sprintf("the file would take %s, of which grain tables address 2T", sizeText(size)))
	}
	descriptor := newVMDKDescriptor(src, v, "SPARSE", v["name"].text+vmdkExtension)
	t.assembly = assembly{disk: descriptor.disk, head: t.metadata(descriptor), body: content}
	return t, nil
}

// vmdkContent returns the grains of a disk that VMDK can hold.
func vmdkContent(src Disk, v values) (*clusters, error) {
	if src.Size() > maxVMDKDisk {
		return nil, vmdkLimit(src.Size(), v["subformat"].text, fmt.Sprintf("at most %s are possible with a grain directory of 32M entries", sizeText(maxVMDKDisk)))
	}
	content, err := newClusters(src, grainBits)
	if errors.Is(err, errFragmented) {
		return nil, vmdkLimit(src.Size(), v["subformat"].text, err.Error())
	}
	return content, err
}

func vmdkLimit(disk int64, subformat, limit string) error {
	return &LimitError{Target: "vmdk,subformat=" + subformat, Disk: disk, Limit: limit, Fits: "qcow2,cluster_size=2M"}
}

// header makes the SparseExtentHeader for a disk of size bytes.
func (t *vmdkSparse) header(disk int64) []byte {
	h := newVMDKHeader(1, vmdkHasNewlines|vmdkHasRedundant, disk)
	binary.LittleEndian.PutUint64(h[48:], uint64(t.redundant.directory/sectorSize))
	binary.LittleEndian.PutUint64(h[56:], uint64(t.primary.directory/sectorSize))
	binary.LittleEndian.PutUint64(h[64:], uint64(t.data/sectorSize))
	return h
}

// metadata returns the sections before the grains, in the order of the file.
func (t *vmdkSparse) metadata(d vmdkDescriptor) []section {
	tables := shiftUp(t.content.present.n, grainTableBits)
	used := t.content.present.groups(grainTableBits + 1) // a holeUnit has two tables
	sections := []section{newLiteral(0, append(t.header(d.disk), d.String()...), t.redundant.directory)}
	for _, m := range []struct {
		grainMap
		end int64
	}{{t.redundant, t.primary.directory}, {t.primary, t.data}} {
		table := newSection(m.tables, tables*grainTableBytes, m.end, t.fillTables)
		table.pieces = used
		sections = append(sections, newSection(m.directory, tables*4, m.tables, func(p []byte, off int64) {
			fillDirectory(p, off/4, tables, m.tables)
		}), table)
	}
	return sections
}

// fillDirectory makes the entries of a grain directory from the one with index
// first on; its tables lie one after the other from offset at on.
func fillDirectory(p []byte, first, tables, at int64) {
	for i := first; i < tables && len(p) >= 4; i++ {
		binary.LittleEndian.PutUint32(p, uint32((at+i*grainTableBytes)/sectorSize))
		p = p[4:]
	}
}

// fillTables makes the entries of grain tables from the byte at off on.
func (t *vmdkSparse) fillTables(p []byte, off int64) {
	present := t.content.present
	first := off / 4
	last := min(present.n, first+int64(len(p))/4)
	if first >= last {
		return
	}
	at := t.data + present.rank(first)<<grainBits
	for i := present.nextOne(first); i < last; i++ {
		if present.has(i) {
			binary.LittleEndian.PutUint32(p[(i-first)*4:], uint32(at/sectorSize))
			at += 1 << grainBits
		}
	}
}

// Flags of a SparseExtentHeader.
const (
	vmdkHasNewlines  = 1 << 0 // the bytes that detect newline conversion are valid
	vmdkHasRedundant = 1 << 1 // there is a redundant grain directory
	vmdkCompressed   = 1 << 16
	vmdkHasMarkers   = 1 << 17
)

// newVMDKHeader returns a SparseExtentHeader without the offsets, one sector.
func newVMDKHeader(version, flags uint32, disk int64) []byte {
	h := make([]byte, sectorSize)
	copy(h, "KDMV")
	binary.LittleEndian.PutUint32(h[4:], version)
	binary.LittleEndian.PutUint32(h[8:], flags)
	binary.LittleEndian.PutUint64(h[12:], uint64(disk/sectorSize))
	binary.LittleEndian.PutUint64(h[20:], 1<<grainBits/sectorSize)
	binary.LittleEndian.PutUint64(h[28:], 1) // offset of the descriptor
	binary.LittleEndian.PutUint64(h[36:], vmdkDescriptorSectors)
	binary.LittleEndian.PutUint32(h[44:], 1<<grainTableBits)
	copy(h[73:], "\n \r\n") // as they are unless a transfer converts newlines
	return h
}
