package convert

// vhd is a Virtual Hard Disk ("vpc" to QEMU) without parent. Names are those of
// Microsoft's Virtual Hard Disk Image Format Specification 1.0. A dynamic one:
//
//	┌──────────────────────┐ 0
//	│ copy of the footer   │ "Hard Disk Footer Format"; 512 bytes
//	├──────────────────────┤ 512
//	│ dynamic disk header  │ "Dynamic Disk Header Format"; 1024 bytes
//	├──────────────────────┤ 1536
//	│ BAT                  │ "Block Allocation Table and Data Blocks"; 4 bytes
//	│                      │ for each block of the disk: the sector of its
//	│                      │ bitmap, or "not there"
//	├──────────────────────┤ a multiple of 4 KiB
//	│ blocks               │ 2 MiB of data each, with a sector bitmap in front;
//	│                      │ see [vhdBlocks]
//	├──────────────────────┤
//	│ footer               │ 512 bytes
//	└──────────────────────┘
//
// and a fixed one:
//
//	┌──────────────────────┐ 0
//	│ the guest's disk     │ as it is
//	├──────────────────────┤
//	│ footer               │
//	└──────────────────────┘
//
// All numbers are big endian.
type vhd struct {
	// Read only after layoutVHD.
	assembly
	// present has a bit for each block of a dynamic disk.
	present *bitmap
}

const (
	// vhdBlockBits is log2 of the bytes of data in a block: the 2 MiB that the
	// specification has as the default, and that Azure and Hyper-V expect.
	vhdBlockBits = 21
	// vhdBAT is the offset in bytes of the BAT.
	vhdBAT = vhdFooterSize + vhdHeaderSize
	// maxVHDDisk in bytes: 2040 GiB are what Hyper-V and QEMU (VHD_MAX_SECTORS
	// in its block/vpc.c) take. The BAT has 32 bits for a sector, so that with
	// bitmaps not much more would be possible.
	maxVHDDisk = 2040 << 30
)

var vhdFormat = format{
	name:      "vhd",
	alias:     "vpc",
	extension: ".vhd",
	about:     "Virtual PC, Hyper-V, Azure",
	largest:   sizeText(maxVHDDisk),
	options: []option{
		{name: "subformat", initial: "dynamic", choices: []string{"dynamic", "fixed"}, about: "store blocks of 2M that hold data, or the disk as it is"},
		{name: "force_size", initial: "off", choices: onOff, about: "keep the size, with subformat=fixed in whole MiB as Azure needs it; off: round it up to a geometry"},
		uuidOption,
	},
	layout: layoutVHD,
	full: func(size int64, v values) int64 {
		disk, _ := vhdDisk(size, v)
		if v["subformat"].text == "fixed" {
			return disk + vhdFooterSize
		}
		return vhdBlocksAt(shiftUp(disk, vhdBlockBits)) + shiftUp(size, vhdBlockBits)*vhdStride + vhdFooterSize
	},
}

// vhdBlocksAt returns the offset in bytes of the blocks of a disk of that many.
func vhdBlocksAt(blocks int64) int64 { return roundUp(vhdBAT+blocks*4, vhdAlign) }

func layoutVHD(src Disk, v values) (Target, error) {
	if src.Size() > maxVHDDisk {
		return nil, tooLarge("vhd", src.Size(), maxVHDDisk, "2^32 sectors, less what its blocks need")
	}
	disk, geometry := vhdDisk(src.Size(), v)
	src = grow(src, disk)
	footer := vhdFooter{disk: disk, geometry: geometry, id: newIdentity(src, "vhd", v).uuid("disk")}
	if v["subformat"].text == "fixed" {
		content := allClusters(src, log2(sectorSize))
		return &assembly{disk: disk, body: content, tail: []section{newLiteral(disk, footer.bytes(), disk+vhdFooterSize)}}, nil
	}
	content, err := newClusters(src, vhdBlockBits)
	if err != nil {
		return nil, err
	}
	footer.dynamic = true
	t := &vhd{assembly{disk: disk, body: vhdBlocks{content}}, content.present}
	blocks := t.present.n
	start := vhdBlocksAt(blocks)
	end := start + t.body.size()
	t.head = []section{
		newLiteral(0, append(footer.bytes(), vhdDynamicHeader(blocks)...), vhdBAT),
		newSection(vhdBAT, roundUp(blocks*4, sectorSize), start, t.fillBAT),
	}
	t.tail = []section{newLiteral(end, footer.bytes(), end+vhdFooterSize)}
	return t, nil
}
