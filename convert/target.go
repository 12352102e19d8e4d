package convert

import (
	"fmt"
	"io"
	"iter"

	"flatimg/layers"
)

// Target is a flat image laid out as one file of a format. Nothing of it is
// stored: any range resolves to segments, in any order, and gives the same
// bytes each time. Safe for concurrent use; valid while the image is open.
type Target interface {
	// Size of the file in bytes, exact.
	Size() int64
	// AppendSegments appends to dst the segments of [off, off+length), in
	// bytes of the file, which must lie within Size. Metadata is generated for
	// the range and held in memory by the segments, so ask for a few MiB at a
	// time. After an error the returned slice is dst as it was.
	AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error)
}

// Disk is what is laid out: a [layers.Image], or what [DropZeros] makes of one.
type Disk interface {
	// Size in bytes.
	Size() int64
	Extents(off, length int64) iter.Seq2[layers.Extent, error]
	AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error)
	// Fingerprint of the disk's state; identifiers in files derive from it.
	Fingerprint() [32]byte
}

var _ = (Disk)((*layers.Image)(nil))

// New lays a disk out in the format of spec. For compact formats this resolves
// the whole offset map, but reads no data. A disk that the format can't hold
// gives a [*LimitError], before the map is resolved where its size alone tells.
// A spec that asks for compression gives a [*PackedError]; see [NewPacker].
func New(src Disk, spec Spec) (Target, error) {
	f, v, err := spec.resolve()
	if err != nil {
		return nil, err
	}
	if f.packs != nil && f.packs(v) {
		return nil, &PackedError{spec}
	}
	if src, err = growAsAsked(src, spec.VirtualSize); err != nil {
		return nil, err
	}
	return f.layout(src, v)
}

// ReadAt reads from t like an [io.ReaderAt].
func ReadAt(t Target, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at negative offset %d", off)
	}
	n := min(int64(len(p)), t.Size()-off)
	if n <= 0 {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	segments, err := t.AppendSegments(nil, off, n)
	if err != nil {
		return 0, err
	}
	if err := layers.ReadSegments(p[:n], segments); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// checkRange returns an error unless [off, off+length) lies within size.
func checkRange(off, length, size int64) error {
	if off < 0 || length < 0 || off > size || length > size-off {
		return fmt.Errorf("range of %d bytes at offset %#x is outside the file of %d bytes", length, off, size)
	}
	return nil
}
