package convert

import (
	"encoding/binary"
	"fmt"
)

// vmdkDescriptor is the text that describes a disk ("The Descriptor File" of
// VMware's Virtual Disk Format 5.0).
type vmdkDescriptor struct {
	disk int64 // virtual size in bytes, whole sectors
	v    values
	// kind of the extent, SPARSE or FLAT, and its file.
	kind, file string
	// image identifies the disk to VirtualBox, content its state.
	image, content uuid
}

// newVMDKDescriptor describes what [vmdkDisk] returns.
func newVMDKDescriptor(src Disk, v values, kind, file string) vmdkDescriptor {
	id := newIdentity(src, "vmdk", v)
	return vmdkDescriptor{src.Size(), v, kind, file, id.uuid("disk"), id.uuid("content")}
}

// String is the text of the descriptor.
func (d vmdkDescriptor) String() string {
	adapter := d.v["adapter_type"].text
	heads := int64(16)
	if adapter != "ide" {
		heads = 255 // of SCSI controllers
	}
	const sectors = 63 // of a track
	cylinders := d.disk / (heads * sectors * sectorSize)
	// Not %q, which would escape what is beyond ASCII.
	extent := fmt.Sprintf(`RW %d %s "%s"`, d.disk/sectorSize, d.kind, d.file)
	if d.kind == "FLAT" {
		extent += " 0" // the offset in the file
	}
	// All ones would say "no parent" in a child, and one less "not known".
	cid := min(binary.BigEndian.Uint32(d.content[12:]), 0xfffffffd)
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=%08x
parentCID=ffffffff
createType="%s"

# Extent description
%s

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "%s"
ddb.longContentID = "%x%08x"
ddb.uuid.image = "%s"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.adapterType = "%s"
`, cid, d.v["subformat"].text, extent, d.v["hwversion"].text, d.content[:12], cid, d.image, cylinders, heads, sectors, adapter)
}
