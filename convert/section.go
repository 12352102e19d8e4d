package convert

import (
	"iter"

	"flatimg/layers"
)

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
	// pieces has a bit for each holeUnit of [start, used): may a byte of it
	// differ from zero? Nil: everywhere.
	pieces *bitmap
}

// newSection returns a section of which the first bytes may be other than zeros.
func newSection(start, bytes, end int64, fill func(p []byte, off int64)) section {
	return section{start: start, used: min(end, start+roundUp(bytes, holeUnit)), end: end, fill: fill}
}

// newLiteral returns a section that starts with content.
func newLiteral(start int64, content []byte, end int64) section {
	return newSection(start, int64(len(content)), end, func(p []byte, off int64) {
		if off < int64(len(content)) {
			copy(p, content[off:])
		}
	})
}

// appendSegments appends the segments of [from, to), which lies in the section.
func (s section) appendSegments(dst []layers.Segment, from, to int64) []layers.Segment {
	for from < to {
		stop, data := s.run(from, to)
		if data {
			dst = append(dst, s.literal(from, stop))
		} else {
			dst = appendZeros(dst, stop-from)
		}
		from = stop
	}
	return dst
}

// run returns the end, at most limit, of the run of data or of zeros at off.
func (s section) run(off, limit int64) (end int64, data bool) {
	if off >= s.used {
		return limit, false
	}
	if s.pieces == nil {
		return min(limit, s.used), true
	}
	piece := (off - s.start) / holeUnit
	data = s.pieces.has(piece)
	if data {
		piece = s.pieces.nextZero(piece, s.pieces.n)
	} else {
		piece = s.pieces.nextOne(piece)
	}
	return min(limit, s.used, s.start+piece*holeUnit), data
}

// literal returns the bytes of [from, to), of which any may differ from zero.
func (s section) literal(from, to int64) layers.Segment {
	first := (from - s.start) &^ 7
	p := make([]byte, roundUp(to-s.start, 8)-first)
	s.fill(p, first)
	skip := from - s.start - first
	return layers.Segment{Length: to - from, Origin: layers.Literal, Bytes: p[skip : skip+to-from]}
}

// dataRuns yields the runs at and after off that may differ from zero.
func (s section) dataRuns(off int64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		for at := max(off, s.start); at < s.used; {
			stop, data := s.run(at, s.used)
			if data && !yield(Run{at, stop - at}) {
				return
			}
			at = stop
		}
	}
}
