package convert

import (
	"iter"

	"flatimg/layers"
)

var rawFormat = format{
	name:      "raw",
	extension: ".raw",
	about:     "the disk as it is",
	layout:    func(src Disk, _ values) (Target, error) { return raw{src}, nil },
	full:      func(size int64, _ values) int64 { return size },
}

// raw is the guest's disk as it is: byte n of the file is byte n of the disk.
type raw struct{ src Disk }

func (r raw) Size() int64 { return r.src.Size() }

func (r raw) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if err := checkRange(off, length, r.Size()); err != nil {
		return dst, err
	}
	if length == 0 {
		return dst, nil
	}
	segments, err := r.src.AppendSegments(dst, off, length)
	if err != nil {
		return dst, err
	}
	return segments, nil
}

var _ = (Sparse)(raw{})

func (r raw) DataRuns(off int64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		for e, err := range r.src.Extents(off, r.Size()-off) {
			if err != nil {
				yield(Run{}, err)
				return
			}
			if holdsData(e) && !yield(Run{e.Offset, e.Length}, nil) {
				return
			}
		}
	}
}
