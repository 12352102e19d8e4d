package convert

import (
	"iter"

	"flatimg/layers"
)

// body is the part of a target that holds the guest's data. Offsets are
// relative to its first byte.
type body interface {
	// size in bytes.
	size() int64
	// appendSegments appends the segments of [off, off+length).
	appendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error)
	// dataRuns yields the runs at and after off that are not zeros by the
	// offset map.
	dataRuns(off int64) iter.Seq2[Run, error]
}

// assembly is a target of metadata, a body, and for some formats metadata again.
// Safe for concurrent use.
type assembly struct {
	// Read only.
	disk int64 // virtual size in bytes that the metadata states
	head []section
	body body
	tail []section
}

// bodyStart returns the offset in bytes of the body, where the head ends.
func (t *assembly) bodyStart() int64 {
	if n := len(t.head); n > 0 {
		return t.head[n-1].end
	}
	return 0
}

// Size implements [Target].
func (t *assembly) Size() int64 {
	if n := len(t.tail); n > 0 {
		return t.tail[n-1].end
	}
	return t.bodyStart() + t.body.size()
}

// GuestSize implements [Guest].
func (t *assembly) GuestSize() int64 { return t.disk }

// AppendSegments implements [Target].
func (t *assembly) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if err := checkRange(off, length, t.Size()); err != nil {
		return dst, err
	}
	segments, end := dst, off+length
	metadata := func(sections []section) {
		for _, s := range sections {
			if off < s.end && off < end {
				stop := min(end, s.end)
				segments = s.appendSegments(segments, off, stop)
				off = stop
			}
		}
	}
	metadata(t.head)
	start := t.bodyStart()
	if stop := min(end, start+t.body.size()); off < stop {
		var err error
		if segments, err = t.body.appendSegments(segments, off-start, stop-off); err != nil {
			return dst, err
		}
		off = stop
	}
	metadata(t.tail)
	return segments, nil
}

var _ = (Sparse)((*assembly)(nil))

// DataRuns implements [Sparse].
func (t *assembly) DataRuns(off int64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		metadata := func(sections []section) bool {
			for _, s := range sections {
				for r := range s.dataRuns(off) {
					if !yield(r, nil) {
						return false
					}
				}
			}
			return true
		}
		if !metadata(t.head) {
			return
		}
		start := t.bodyStart()
		for r, err := range t.body.dataRuns(max(0, off-start)) {
			r.Offset += start
			if !yield(r, err) {
				return
			}
		}
		metadata(t.tail)
	}
}
