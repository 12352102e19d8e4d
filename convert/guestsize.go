package convert

import (
	"fmt"
	"iter"

	"flatimg/layers"
	"flatimg/layers/volume"
)

// Guest is implemented by targets whose file states the size of the guest's
// disk. A target without it is the disk itself.
type Guest interface {
	// GuestSize returns the virtual size in bytes as the file states it. It is
	// at least that of the image; what is more reads as zeros.
	GuestSize() int64
}

// GuestSize returns the virtual size in bytes of the disk that a guest sees
// when it gets t.
func GuestSize(t Target) int64 {
	if g, ok := t.(Guest); ok {
		return g.GuestSize()
	}
	return t.Size()
}

// grown is a disk with a hole at its end.
type grown struct {
	Disk
	size int64
}

// grow returns src with a size of at least size bytes.
func grow(src Disk, size int64) Disk {
	if size <= src.Size() {
		return src
	}
	return grown{src, size}
}

// growAsAsked returns src with the virtual size that a spec asks for, 0 for its
// own one. The guest's bytes are never cut.
func growAsAsked(src Disk, size int64) (Disk, error) {
	switch {
	case size == 0:
		return src, nil
	case size < 0 || size%sectorSize != 0:
		return nil, &SpecError{fmt.Errorf("virtual size %d is no multiple of %d bytes", size, sectorSize), "--virtual-size takes k, M, G and T"}
	case size < src.Size():
		return nil, &SpecError{
			fmt.Errorf("virtual size %s is less than the %s of the disk, which can't be cut off", sizeText(size), sizeText(src.Size())),
			fmt.Sprintf("--virtual-size %s is the least", sizeText(roundUp(src.Size(), sectorSize))),
		}
	}
	return grow(src, size), nil
}

func (g grown) Size() int64 { return g.size }

func (g grown) Extents(off, length int64) iter.Seq2[layers.Extent, error] {
	return func(yield func(layers.Extent, error) bool) {
		end := g.size
		if length < g.size-off {
			end = off + length
		}
		own := g.Disk.Size()
		if off < min(own, end) {
			for e, err := range g.Disk.Extents(off, min(own, end)-off) {
				if !yield(e, err) || err != nil {
					return
				}
			}
		}
		if off = max(off, own); off < end {
			yield(layers.Extent{Offset: off, Length: end - off, Layer: -1, Kind: volume.Hole, Host: volume.NoHost}, nil)
		}
	}
}

func (g grown) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if err := checkRange(off, length, g.size); err != nil {
		return nil, err
	}
	return appendGuest(dst, g.Disk, off, length)
}
