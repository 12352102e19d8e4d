package convert

import (
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"
)

const (
	vhdxPart       = 64 << 10 // distance in bytes of the parts of the header section (2.2)
	vhdxHeaderSize = 4 << 10  // what the checksum of a header covers (2.2.2)
	vhdxItems      = 64 << 10 // offset of the items in the metadata region (2.6.1)
)

// GUIDs of regions (2.2.3.2) and of metadata items (2.6.2).
var (
	vhdxBATRegion      = knownUUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
	vhdxMetadataRegion = knownUUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")

	vhdxFileParameters     = knownUUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
	vhdxVirtualDiskSize    = knownUUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
	vhdxVirtualDiskID      = knownUUID("beca12ab-b2e6-4523-93ef-c309e000c746")
	vhdxLogicalSectorSize  = knownUUID("8141bf1d-a96f-4709-ba47-f233a8faab5f")
	vhdxPhysicalSectorSize = knownUUID("cda348c7-445d-4471-9cc9-e9885251c556")
)

// Flags of a metadata table entry (2.6.1.2).
const (
	vhdxIsVirtualDisk = 2
	vhdxIsRequired    = 4
)

// metadata returns the sections before the payload blocks.
func (t *vhdx) metadata(fixed bool, ids identity) []section {
	blocks, bits := t.content.present.n, t.content.bits
	bat := vhdxBATEntries(blocks, bits) * 8
	end := vhdxBlocksAt(blocks, bits)
	regions := vhdxRegionTable(end - vhdxBATAt)
	table, items := t.metadataItems(fixed, ids)
	return []section{
		newLiteral(0, vhdxFileType(), 1*vhdxPart),
		newLiteral(1*vhdxPart, vhdxHeader(1, ids), 2*vhdxPart),
		newLiteral(2*vhdxPart, vhdxHeader(2, ids), 3*vhdxPart),
		newLiteral(3*vhdxPart, regions, 4*vhdxPart),
		newLiteral(4*vhdxPart, regions, vhdxLogAt),
		newLiteral(vhdxLogAt, nil, vhdxMetadataAt),
		newLiteral(vhdxMetadataAt, table, vhdxMetadataAt+vhdxItems),
		newLiteral(vhdxMetadataAt+vhdxItems, items, vhdxBATAt),
		newSection(vhdxBATAt, bat, end, t.fillBAT),
	}
}

// vhdxFileType returns the file type identifier: the signature, and the creator
// for whoever looks into the file.
func vhdxFileType() []byte {
	b := []byte("vhdxfile")
	for _, u := range utf16.Encode([]rune("flatimg")) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// vhdxHeader returns a header. The log GUID is zero: there is nothing to replay.
func vhdxHeader(sequence uint64, ids identity) []byte {
	b := make([]byte, vhdxHeaderSize)
	le := binary.LittleEndian
	copy(b, "head")
	le.PutUint64(b[8:], sequence)
	copy(b[16:], ids.uuid("file write").guid())
	copy(b[32:], ids.uuid("data write").guid())
	le.PutUint16(b[66:], 1) // version
	le.PutUint32(b[68:], vhdxMetadataAt-vhdxLogAt)
	le.PutUint64(b[72:], vhdxLogAt)
	vhdxSeal(b)
	return b
}

// vhdxRegionTable returns a region table for a BAT region of bat bytes.
func vhdxRegionTable(bat int64) []byte {
	b := make([]byte, vhdxPart)
	le := binary.LittleEndian
	copy(b, "regi")
	regions := []struct {
		id         uuid
		at, length int64
	}{
		{vhdxBATRegion, vhdxBATAt, bat},
		{vhdxMetadataRegion, vhdxMetadataAt, vhdxBATAt - vhdxMetadataAt},
	}
	le.PutUint32(b[8:], uint32(len(regions)))
	const header, entry = 16, 32
	for i, r := range regions {
		e := b[header+i*entry:]
		copy(e, r.id.guid())
		le.PutUint64(e[16:], uint64(r.at))
		le.PutUint32(e[24:], uint32(r.length))
		le.PutUint32(e[28:], 1) // required
	}
	vhdxSeal(b)
	return b[:header+len(regions)*entry]
}

// metadataItems returns the metadata table and the items, which follow it at
// vhdxItems.
func (t *vhdx) metadataItems(fixed bool, ids identity) (table, items []byte) {
	le := binary.LittleEndian
	var leaveBlocksAllocated uint32 // 2.6.2.1
	if fixed {
		leaveBlocksAllocated = 1
	}
	all := []struct {
		id    uuid
		flags uint32
		item  []byte
	}{
		{vhdxFileParameters, vhdxIsRequired, le.AppendUint32(le.AppendUint32(nil, 1<<t.content.bits), leaveBlocksAllocated)},
		{vhdxVirtualDiskSize, vhdxIsRequired | vhdxIsVirtualDisk, le.AppendUint64(nil, uint64(t.disk))},
		{vhdxVirtualDiskID, vhdxIsRequired | vhdxIsVirtualDisk, ids.uuid("disk").guid()},
		{vhdxLogicalSectorSize, vhdxIsRequired | vhdxIsVirtualDisk, le.AppendUint32(nil, sectorSize)},
		{vhdxPhysicalSectorSize, vhdxIsRequired | vhdxIsVirtualDisk, le.AppendUint32(nil, sectorSize)},
	}
	table = append(table, "metadata"...)
	table = le.AppendUint16(table, 0)
	table = le.AppendUint16(table, uint16(len(all)))
	table = append(table, make([]byte, 20)...)
	for _, m := range all {
		table = append(table, m.id.guid()...)
		table = le.AppendUint32(table, uint32(vhdxItems+len(items)))
		table = le.AppendUint32(table, uint32(len(m.item)))
		table = le.AppendUint32(table, m.flags)
		table = le.AppendUint32(table, 0)
		items = append(items, m.item...)
	}
	return table, items
}

// castagnoli is the polynomial of the checksums (2.2.2).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// vhdxSeal sets the checksum of a header or of a region table, which covers all
// of b.
func vhdxSeal(b []byte) {
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b, castagnoli))
}
