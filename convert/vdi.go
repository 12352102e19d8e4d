package convert

import (
	"encoding/binary"
	"fmt"
)

// Numbers of VirtualBox's VDICore.h, which is what there is of a specification.
const (
	vdiSignature  = 0xbeda107f // VDI_IMAGE_SIGNATURE
	vdiVersion    = 0x00010001 // VDI_IMAGE_VERSION: 1.1
	vdiHeaderSize = 400        // of VDIHEADER1PLUS, counted from its own field on
	vdiDynamic    = 1          // VDI_IMAGE_TYPE_NORMAL
	vdiStatic     = 2          // VDI_IMAGE_TYPE_FIXED
	// vdiFree is VDI_IMAGE_BLOCK_FREE: the block has no place in the file. In
	// an image without parent it reads as zeros.
	vdiFree = 0xffffffff
	// vdiBlockBits is log2 of the block size in bytes: 1 MiB, as VirtualBox
	// makes it and the only one that QEMU reads.
	vdiBlockBits = 20
	// vdiMap is the offset in bytes of the block map, as QEMU has it.
	vdiMap = 512
	// maxVDIBlocks is the greatest number of blocks that QEMU opens
	// (VDI_BLOCKS_IN_IMAGE_MAX in its block/vdi.c): the map of 4 bytes each
	// ends at 2 GiB, so that offset and length fit into 31 bits.
	maxVDIBlocks = (1<<31 - vdiMap) / 4
	maxVDIDisk   = maxVDIBlocks << vdiBlockBits
)

// vdi is a VirtualBox disk image without parent. Names are those of VirtualBox's
// VDICore.h:
//
//	┌──────────────────────┐ 0
//	│ VDIPREHEADER         │ text, signature, version; 72 bytes
//	│ VDIHEADER1PLUS       │ sizes, offsets and identifiers
//	├──────────────────────┤ offBlocks, 512
//	│ block map            │ 4 bytes for each block of the disk: the number of
//	│                      │ its place among the image blocks, or "free"
//	├──────────────────────┤ offData, a multiple of 1 MiB
//	│ image blocks         │ 1 MiB each, in the disk's order
//	└──────────────────────┘
//
// A static image has all blocks, a dynamic one those that hold data. Blocks are
// aligned to their size, as VirtualBox makes them.
type vdi struct {
	// Read only after layoutVDI.
	assembly
	content *clusters
}

var vdiFormat = format{
	name:      "vdi",
	extension: ".vdi",
	about:     "VirtualBox",
	largest:   "128M less than 512T",
	options: []option{
		{name: "subformat", initial: "dynamic", choices: []string{"dynamic", "static"}, about: "store blocks of 1M that hold data, or all"},
		{name: "static", initial: "off", choices: onOff, about: "on is subformat=static"},
		uuidOption,
	},
	check: func(v values) *SpecError {
		subformat, static := v["subformat"], v["static"]
		if subformat.given && static.given && (subformat.text == "static") != (static.text == "on") {
			return &SpecError{fmt.Errorf("subformat=%s and static=%s contradict each other", subformat.text, static.text), "give one of them"}
		}
		return nil
	},
	layout: func(src Disk, v values) (Target, error) { return layoutVDI(src, v) },
	full: func(size int64, _ values) int64 {
		blocks := shiftUp(size, vdiBlockBits)
		return vdiData(blocks) + blocks<<vdiBlockBits
	},
}

// vdiData returns the offset in bytes of the image blocks.
func vdiData(blocks int64) int64 { return roundUp(vdiMap+blocks*4, 1<<vdiBlockBits) }

func layoutVDI(src Disk, v values) (*vdi, error) {
	if src.Size() > maxVDIDisk {
		return nil, tooLarge("vdi", src.Size(), maxVDIDisk, "a block map that QEMU reads")
	}
	src = grow(src, roundUp(src.Size(), sectorSize))
	kind := uint32(vdiDynamic)
	var content *clusters
	if v["subformat"].text == "static" || v["static"].text == "on" {
		kind, content = vdiStatic, allClusters(src, vdiBlockBits)
	} else {
		var err error
		if content, err = newClusters(src, vdiBlockBits); err != nil {
			return nil, err
		}
	}
	t := &vdi{assembly{disk: src.Size(), body: content}, content}
	blocks := content.present.n
	t.head = []section{
		newLiteral(0, t.header(kind, newIdentity(src, "vdi", v)), vdiMap),
		newSection(vdiMap, blocks*4, vdiData(blocks), t.fillMap),
	}
	return t, nil
}

// header returns VDIPREHEADER and VDIHEADER1PLUS. Fields that are not set are
// zero: no comment, no geometry, no parent.
func (t *vdi) header(kind uint32, ids identity) []byte {
	h := make([]byte, vdiMap)
	copy(h, "<<< flatimg Virtual Disk Image >>>\n")
	le := binary.LittleEndian
	le.PutUint32(h[64:], vdiSignature)
	le.PutUint32(h[68:], vdiVersion)
	le.PutUint32(h[72:], vdiHeaderSize)
	le.PutUint32(h[76:], kind)
	le.PutUint32(h[340:], vdiMap)
	le.PutUint32(h[344:], uint32(vdiData(t.content.present.n)))
	le.PutUint32(h[360:], sectorSize)
	le.PutUint64(h[368:], uint64(t.disk))
	le.PutUint32(h[376:], 1<<vdiBlockBits)
	le.PutUint32(h[384:], uint32(t.content.present.n))
	le.PutUint32(h[388:], uint32(t.content.present.count()))
	copy(h[392:], ids.uuid("disk").guid())
	copy(h[408:], ids.uuid("modification").guid())
	return h
}

// fillMap makes the block map.
func (t *vdi) fillMap(p []byte, off int64) {
	present := t.content.present
	first := min(present.n, off/4)
	place := uint32(present.rank(first))
	for i := first; i < min(present.n, off/4+int64(len(p))/4); i++ {
		entry := uint32(vdiFree)
		if present.has(i) {
			entry, place = place, place+1
		}
		binary.LittleEndian.PutUint32(p[(i-first)*4:], entry)
	}
}
