package convert

import "flatimg/layers"

// appendGuest appends the segments of [off, off+length) of the guest's disk,
// with zeros where the range passes its end.
func appendGuest(dst []layers.Segment, src Disk, off, length int64) ([]layers.Segment, error) {
	inside := min(length, max(0, src.Size()-off))
	if inside > 0 {
		var err error
		if dst, err = src.AppendSegments(dst, off, inside); err != nil {
			return nil, err
		}
	}
	return appendZeros(dst, length-inside), nil
}

func appendZeros(dst []layers.Segment, length int64) []layers.Segment {
	if length == 0 {
		return dst
	}
	return append(dst, layers.Segment{Length: length, Origin: layers.Zeros})
}

// join merges neighbours among segments[from:] that are one run of zeros or one
// run of a file: guest clusters that are apart on the disk are often neighbours
// in the source's file, and one long segment is one system call.
func join(segments []layers.Segment, from int) []layers.Segment {
	if from == len(segments) {
		return segments
	}
	last := from
	for _, s := range segments[from+1:] {
		if l := &segments[last]; joinable(*l, s) {
			l.Length += s.Length
		} else {
			last++
			segments[last] = s
		}
	}
	clear(segments[last+1:]) // let go of metadata and files
	return segments[:last+1]
}

func joinable(a, b layers.Segment) bool {
	if a.Origin != b.Origin {
		return false
	}
	switch a.Origin {
	case layers.Zeros:
		return true
	case layers.InFile:
		return a.File == b.File && a.Offset+a.Length == b.Offset
	}
	return false
}
