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
	source
	size int64
}

// grow returns src with a size of at least size bytes.
func grow(src source, size int64) source {
	if size <= src.Size() {
		return src
	}
	return grown{src, size}
}

// growAsAsked returns src with the virtual size that a spec asks for, 0 for its
// own one. The guest's bytes are never cut.
func growAsAsked(src source, size int64) (source, error) {
	switch {
	case size == 0:
		return src, nil
	case size < 0 || size%sectorSize != 0:
		return nil, fmt.Errorf("virtual size %d is no multiple of %d bytes", size, sectorSize)
	case size < src.Size():
		return nil, fmt.Errorf("virtual size %s is less than the disk has: %s can't be cut off",
			sizeText(size), sizeText(src.Size()-size))
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
		own := g.source.Size()
		if off < min(own, end) {
			for e, err := range g.source.Extents(off, min(own, end)-off) {
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
	return appendGuest(dst, g.source, off, length)
}
