package layers

import (
	"fmt"

	"flatimg/layers/volume"
)

// Origin says where the bytes of a [Segment] are.
type Origin uint8

const (
	// Zeros: the segment has no bytes, it reads as zeros.
	Zeros Origin = iota
	// Literal: the bytes are in [Segment.Bytes].
	Literal
	// InFile: the bytes are in [Segment.File] at [Segment.Offset].
	InFile
	// InCluster: the bytes are in a compressed cluster; [Segment.ReadInto]
	// inflates it.
	InCluster
)

// Segment says where the bytes of a run of output are, not what they are.
// It is a value; it is valid as long as the image it came from is open.
type Segment struct {
	// Length in bytes, at least 1.
	Length int64
	Origin Origin
	// Bytes are the bytes themselves (Literal only), Length of them. They
	// must not be changed.
	Bytes []byte
	// File and Offset in bytes of the first byte (InFile only). The whole
	// segment lies within the size that the file had when it was opened.
	File   *volume.File
	Offset int64

	// image that the segment comes from, nil for others, and the offset in its
	// disk of the first byte.
	image   *Image
	guest   int64
	cluster clusterRef
}

// clusterRef names a compressed cluster of an image and a byte in it.
type clusterRef struct {
	layer  int
	host   int64
	stored int64
	// from is the offset in the inflated cluster of the segment's first byte.
	from int64
}

// Slice returns the part [from, to) of the segment.
func (s Segment) Slice(from, to int64) Segment {
	if from < 0 || to > s.Length || from >= to {
		panic(fmt.Sprintf("layers: internal error: slice [%d, %d) of a segment of %d bytes", from, to, s.Length))
	}
	s.Length = to - from
	s.guest += from
	switch s.Origin {
	case Literal:
		s.Bytes = s.Bytes[from:to]
	case InFile:
		s.Offset += from
	case InCluster:
		s.cluster.from += from
	}
	return s
}

// ReadInto fills p, which must have s.Length bytes. Safe for concurrent use.
func (s Segment) ReadInto(p []byte) error {
	if int64(len(p)) != s.Length {
		panic("layers: internal error: buffer and segment differ in length")
	}
	switch s.Origin {
	case Literal:
		copy(p, s.Bytes)
	case InFile:
		_, err := s.File.ReadAt(p, s.Offset)
		return s.Fault(err)
	case InCluster:
		b, err := s.Inflated()
		if err != nil {
			return err
		}
		copy(p, b)
	default:
		clear(p)
	}
	return nil
}

// Inflated returns the bytes of an InCluster segment. They are shared with the
// cache of inflated clusters and must not be changed.
func (s Segment) Inflated() ([]byte, error) {
	b, err := s.image.inflate(s.cluster.layer, s.cluster.host, s.cluster.stored)
	if err != nil {
		return nil, s.Fault(err)
	}
	return b[s.cluster.from : s.cluster.from+s.Length], nil
}

// Fault adds to an error of reading the segment at which offset of the disk it
// begins, and that it lies in a source image; nil stays nil.
func (s Segment) Fault(err error) error {
	if err == nil || s.image == nil {
		return err
	}
	return sourceError(fmt.Errorf("guest offset %#x: %w", s.guest, err))
}

// ReadSegments fills p from the segments, whose lengths must add up to it.
func ReadSegments(p []byte, segments []Segment) error {
	for _, s := range segments {
		if err := s.ReadInto(p[:s.Length]); err != nil {
			return err
		}
		p = p[s.Length:]
	}
	return nil
}
