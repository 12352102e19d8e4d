package convert

const (
	// vhdMaxGeometry is the number of sectors of the greatest geometry.
	vhdMaxGeometry = 65535 * 16 * 255
	// azureUnit in bytes: Azure takes only disks of whole MiB ("Prepare a
	// Windows VHD or VHDX to upload to Azure").
	azureUnit = 1 << 20
)

// vhdGeometry is the geometry of a disk for those that still ask for one.
type vhdGeometry struct {
	cylinders      uint16
	heads, sectors uint8 // sectors of a track
}

// vhdGeometryOf returns the largest geometry that the specification's "CHS
// Calculation" gives to a disk of that many sectors; it may be a few smaller.
func vhdGeometryOf(sectors int64) vhdGeometry {
	sectors = min(sectors, vhdMaxGeometry)
	if sectors >= 65535*16*63 {
		return vhdGeometry{uint16(sectors / 255 / 16), 16, 255}
	}
	track := int64(17)
	tracks := sectors / track
	heads := max(4, (tracks+1023)/1024)
	if tracks >= heads*1024 || heads > 16 {
		track, heads = 31, 16
		tracks = sectors / track
	}
	if tracks >= heads*1024 {
		track, heads = 63, 16
		tracks = sectors / track
	}
	return vhdGeometry{uint16(tracks / heads), uint8(heads), uint8(track)}
}

// total number of sectors.
func (g vhdGeometry) total() int64 {
	return int64(g.cylinders) * int64(g.heads) * int64(g.sectors)
}

// vhdDisk returns the virtual size in bytes of a VHD for size bytes, and its
// geometry. Unless the size is forced it is rounded up to the next geometry, so
// that readers that go by the geometry and those that go by the size agree; a
// disk larger than any geometry has its own size.
func vhdDisk(size int64, v values) (int64, vhdGeometry) {
	sectors := max(1, (size+sectorSize-1)/sectorSize)
	if v["force_size"].text == "on" {
		if v["subformat"].text == "fixed" {
			sectors = roundUp(sectors*sectorSize, azureUnit) / sectorSize
		}
		return sectors * sectorSize, vhdGeometryOf(sectors)
	}
	g := vhdGeometryOf(sectors)
	for more := int64(1); g.total() < min(sectors, vhdMaxGeometry); more++ {
		g = vhdGeometryOf(sectors + more)
	}
	if g.total() < vhdMaxGeometry {
		sectors = g.total()
	}
	return sectors * sectorSize, g
}
