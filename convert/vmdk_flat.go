package convert

import "flatimg/layers"

// vmdkFlat is a monolithicFlat VMDK: a file with nothing but the descriptor,
// which names a companion that holds the guest's disk as it is, filled up with
// zeros to a whole sector.
type vmdkFlat struct {
	text string // the descriptor
	disk raw
}

// vmdkFlatSuffix is that of the companion's name.
const vmdkFlatSuffix = "-flat.vmdk"

func layoutVMDKFlat(src Disk, v values) (Target, error) {
	text := newVMDKDescriptor(src, v, "FLAT", v["name"].text+vmdkFlatSuffix).String()
	return vmdkFlat{text, raw{src}}, nil
}

// vmdkFlatSize returns the size in bytes of both files for a disk of size
// bytes, whole sectors.
func vmdkFlatSize(size int64, v values) int64 {
	d := vmdkDescriptor{disk: size, v: v, kind: "FLAT", file: v["name"].text + vmdkFlatSuffix}
	return int64(len(d.String())) + size
}

// Size implements [Target].
func (t vmdkFlat) Size() int64 { return int64(len(t.text)) }

// GuestSize implements [Guest].
func (t vmdkFlat) GuestSize() int64 { return t.disk.Size() }

// AppendSegments implements [Target].
func (t vmdkFlat) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if err := checkRange(off, length, t.Size()); err != nil || length == 0 {
		return dst, err
	}
	return append(dst, layers.Segment{Length: length, Origin: layers.Literal, Bytes: []byte(t.text[off : off+length])}), nil
}

var _ = (hasCompanions)(vmdkFlat{})

func (t vmdkFlat) companions() []Companion { return []Companion{{vmdkFlatSuffix, t.disk}} }
