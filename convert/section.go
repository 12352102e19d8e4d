package convert

import "flatimg/layers"

// holeUnit is the granularity in bytes of holes in metadata: the usual block
// size of file systems, below which a hole saves nothing.
const holeUnit = 4096

// section is a part of a target's metadata. Offsets are in bytes of the file.
type section struct {
	// The section is [start, end); from used on it is zeros.
	start, used, end int64
	// fill writes the bytes from off on, relative to start, into p, which is
	// zeros. Both off and the length of p are multiples of 8.
	fill func(p []byte, off int64)
}

// newSection returns a section of which the first bytes may be other than zeros.
func newSection(start, bytes, end int64, fill func(p []byte, off int64)) section {
	return section{start, min(end, start+roundUp(bytes, holeUnit)), end, fill}
}

// appendSegments appends the segments of [from, to), which lies in the section.
func (s section) appendSegments(dst []layers.Segment, from, to int64) []layers.Segment {
	if stop := min(to, s.used); from < stop {
		first := (from - s.start) &^ 7
		p := make([]byte, roundUp(stop-s.start, 8)-first)
		s.fill(p, first)
		skip := from - s.start - first
		dst = append(dst, layers.Segment{
			Length: stop - from,
			Origin: layers.Literal,
			Bytes:  p[skip : skip+stop-from],
		})
		from = stop
	}
	return appendZeros(dst, to-from)
}
