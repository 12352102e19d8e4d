package convert

import (
	"strings"
	"unicode"
)

const vmdkExtension = ".vmdk"

// Values of the option subformat, which are also those of createType in a
// descriptor.
const (
	vmdkSparseType = "monolithicSparse"
	vmdkFlatType   = "monolithicFlat"
	vmdkStreamType = "streamOptimized"
)

var vmdkFormat = format{
	name:      "vmdk",
	extension: vmdkExtension,
	about:     "VMware, VirtualBox",
	largest:   sizeText(maxVMDKDisk) + ", 2T of data",
	options: []option{
		{name: "subformat", initial: vmdkSparseType, choices: []string{vmdkSparseType, vmdkFlatType, vmdkStreamType}, about: "streamOptimized is compressed, monolithicFlat is two files"},
		adapterOption("ide", "buslogic", "lsilogic", "legacyESX"),
		// Those that VMware's products have had. A new one can open what is
		// of an old one.
		{name: "hwversion", initial: "4", choices: []string{"4", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20", "21"}, about: "VMware's virtual hardware version"},
		nameOption,
		uuidOption,
	},
	layout: func(src Disk, v values) (Target, error) {
		src = vmdkDisk(src)
		if v["subformat"].text == vmdkFlatType {
			return layoutVMDKFlat(src, v)
		}
		return layoutVMDKSparse(src, v)
	},
	companions: func(v values) []string {
		if v["subformat"].text == vmdkFlatType {
			return []string{vmdkFlatSuffix}
		}
		return nil
	},
	packs: func(v values) bool { return v["subformat"].text == vmdkStreamType },
	pack:  func(src Disk, v values) (Packer, error) { return newVMDKStream(src, v) },
	full: func(size int64, v values) int64 {
		data := shiftUp(size, grainBits)
		size = vmdkDiskSize(size)
		grains := shiftUp(size, grainBits)
		switch v["subformat"].text {
		case vmdkFlatType:
			return vmdkFlatSize(size, v)
		case vmdkStreamType:
			return vmdkStreamBound(data, shiftUp(data, grainTableBits), grains)
		}
		return placeVMDK(grains).data + data<<grainBits
	},
}

// vmdkDiskSize returns the virtual size of a VMDK for a disk of size bytes: whole
// sectors, at least one, since QEMU takes a header with none for a descriptor
// without an extent.
func vmdkDiskSize(size int64) int64 { return max(sectorSize, roundUp(size, sectorSize)) }

func vmdkDisk(src Disk) Disk { return grow(src, vmdkDiskSize(src.Size())) }

// adapterOption is the kind of disk controller that a descriptor names.
func adapterOption(initial string, others ...string) option {
	return option{
		name:    "adapter_type",
		initial: initial,
		choices: append([]string{initial}, others...),
		about:   "disk controller of the virtual machine",
	}
}

// nameOption is the name of a file, without its extension, in a descriptor.
var nameOption = option{
	name:    "name",
	initial: "disk",
	about:   "of the file, as it records it; default in an export: that of the file",
	what:    "a file name without quotes, slashes and control characters",
	isText: func(text string) bool {
		return text != "" && len(text) < 256 && !strings.ContainsFunc(text, func(r rune) bool {
			return r == '"' || r == '/' || r == unicode.ReplacementChar || unicode.IsControl(r)
		})
	},
}
