package convert

import "encoding/binary"

// vhdx is a Virtual Hard Disk v2 without parent. Names and sections are those of
// [MS-VHDX]:
//
//	┌──────────────────────┐ 0
//	│ file type identifier │ 2.2.1
//	├──────────────────────┤ 64 KiB
//	│ header 1             │ 2.2.2; 4 KiB
//	├──────────────────────┤ 128 KiB
//	│ header 2             │ as header 1, with the next sequence number
//	├──────────────────────┤ 192 KiB
//	│ region table 1       │ 2.2.3: where the BAT and the metadata are
//	├──────────────────────┤ 256 KiB
//	│ region table 2       │ the same
//	├──────────────────────┤ 1 MiB
//	│ log                  │ 2.3; 1 MiB of zeros, nothing to replay
//	├──────────────────────┤ 2 MiB
//	│ metadata             │ 2.6: table, and 64 KiB after it the items
//	├──────────────────────┤ 3 MiB
//	│ BAT                  │ 2.5; 8 bytes for each payload block of the disk,
//	│                      │ and for a sector bitmap block after each chunk
//	├──────────────────────┤ a multiple of 1 MiB
//	│ payload blocks       │ in the disk's order
//	└──────────────────────┘
//
// A fixed one has all payload blocks, a dynamic one those that hold data. There
// are no sector bitmap blocks, which only a disk with a parent needs. All
// numbers are little endian.
type vhdx struct {
	// Read only after layoutVHDX.
	assembly
	content *clusters
	// absent is the BAT entry of a block that is not in the file.
	absent uint64
}

const (
	vhdxLogAt      = 1 << 20
	vhdxMetadataAt = 2 << 20
	vhdxBATAt      = 3 << 20
	// vhdxUnit is the alignment in bytes of regions and payload blocks, and the
	// least size of a log (2.2).
	vhdxUnit = 1 << 20
	// maxVHDXDisk in bytes (2.6.2.2).
	maxVHDXDisk = 64 << 40
	// minVHDXBlock and maxVHDXBlock in bytes (2.6.2.1).
	minVHDXBlock = 1 << 20
	maxVHDXBlock = 256 << 20
	// vhdxAutoBlocks is the most blocks of a disk when the block size is to be
	// chosen: a BAT of 8 MiB. Small blocks store less empty space.
	vhdxAutoBlocks = 1 << 20

	// Payload BAT entry states (2.5.1.1).
	vhdxNotPresent = 0
	vhdxZero       = 2
	vhdxPresent    = 6
)

var vhdxFormat = format{
	name:      "vhdx",
	extension: ".vhdx",
	about:     "Hyper-V",
	largest:   sizeText(maxVHDXDisk),
	options: []option{
		{name: "subformat", initial: "dynamic", choices: []string{"dynamic", "fixed"}, about: "store blocks that hold data, or all"},
		{name: "block_size", initial: "0", least: minVHDXBlock, most: maxVHDXBlock, auto: true, about: "0: the smallest that gives at most 1 Mi blocks"},
		{name: "block_state_zero", initial: "on", choices: onOff, about: "absent blocks are marked as zeros; off: as not present"},
		uuidOption,
	},
	layout: func(src Disk, v values) (Target, error) { return layoutVHDX(src, v) },
	full: func(size int64, v values) int64 {
		disk := vhdxDisk(size)
		bits := vhdxBlockBits(disk, v)
		blocks := shiftUp(disk, bits)
		stored := shiftUp(size, bits)
		if v["subformat"].text == "fixed" {
			stored = blocks
		}
		return vhdxBlocksAt(blocks, bits) + stored<<bits
	},
}

// vhdxDisk returns the virtual size in bytes for a disk of size bytes: Hyper-V
// makes them of whole MiB only, and not empty.
func vhdxDisk(size int64) int64 { return max(1, shiftUp(size, log2(vhdxUnit))) * vhdxUnit }

// vhdxBlockBits returns log2 of the block size in bytes.
func vhdxBlockBits(disk int64, v values) uint {
	if given := v["block_size"].bytes; given > 0 {
		return log2(given)
	}
	bits := log2(minVHDXBlock)
	for shiftUp(disk, bits) > vhdxAutoBlocks {
		bits++
	}
	return bits
}

// vhdxChunk returns the number of payload blocks whose sectors a sector bitmap
// block of 2^23 bits describes (2.5, "chunk ratio").
func vhdxChunk(bits uint) int64 { return sectorSize << 23 >> bits }

// vhdxBATEntries returns the number of BAT entries of a disk without parent
// (2.5): the last one is for a payload block. There is at least one block.
func vhdxBATEntries(blocks int64, bits uint) int64 { return blocks + (blocks-1)/vhdxChunk(bits) }

// vhdxBlocksAt returns the offset in bytes of the payload blocks.
func vhdxBlocksAt(blocks int64, bits uint) int64 {
	return vhdxBATAt + roundUp(vhdxBATEntries(blocks, bits)*8, vhdxUnit)
}

func layoutVHDX(src Disk, v values) (*vhdx, error) {
	if src.Size() > maxVHDXDisk {
		return nil, tooLarge("vhdx", src.Size(), maxVHDXDisk, "its specification")
	}
	disk := vhdxDisk(src.Size())
	bits := vhdxBlockBits(disk, v)
	src = grow(src, disk)
	t := &vhdx{assembly: assembly{disk: disk}, absent: vhdxZero}
	if v["block_state_zero"].text == "off" {
		t.absent = vhdxNotPresent
	}
	fixed := v["subformat"].text == "fixed"
	if fixed {
		t.content = allClusters(src, bits)
	} else {
		var err error
		if t.content, err = newClusters(src, bits); err != nil {
			return nil, err
		}
	}
	t.body = t.content
	t.head = t.metadata(fixed, newIdentity(src, "vhdx", v))
	return t, nil
}

// fillBAT makes the BAT.
func (t *vhdx) fillBAT(p []byte, off int64) {
	present := t.content.present
	chunk := vhdxChunk(t.content.bits) + 1 // with the sector bitmap block's entry
	first := off / 8
	last := min(vhdxBATEntries(present.n, t.content.bits), first+int64(len(p))/8)
	if first >= last {
		return
	}
	at := t.bodyStart() + present.rank(first-first/chunk)<<t.content.bits
	for i := first; i < last; i++ {
		if i%chunk == chunk-1 {
			continue // not present (2.5.1.2), which is zero
		}
		entry := t.absent
		if present.has(i - i/chunk) {
			// The offset in MiB stands from bit 20 on, so the offset in
			// bytes is it already.
			entry = uint64(at) | vhdxPresent
			at += 1 << t.content.bits
		}
		binary.LittleEndian.PutUint64(p[(i-first)*8:], entry)
	}
}
