package area

import (
	"iter"

	"flatimg/layers"
)

// piece is a segment and where it lies in the target, in bytes.
type piece struct {
	at int64
	layers.Segment
}

// pieces yields the segments of a range that begins at offset at, zeros left
// out and runs of one file that continue each other joined: one long clone
// costs as much as one short.
func pieces(at int64, segments []layers.Segment) iter.Seq[piece] {
	return func(yield func(piece) bool) {
		var last piece
		for _, s := range segments {
			if continues(last.Segment, s) {
				last.Length += s.Length
				at += s.Length
				continue
			}
			if last.Length > 0 && !yield(last) {
				return
			}
			last = piece{}
			if s.Origin != layers.Zeros {
				last = piece{at, s}
			}
			at += s.Length
		}
		if last.Length > 0 {
			yield(last)
		}
	}
}

func continues(a, b layers.Segment) bool {
	return a.Length > 0 && a.Origin == layers.InFile && b.Origin == layers.InFile &&
		a.File == b.File && a.Offset+a.Length == b.Offset
}

// slice returns the part [from, to) of the piece.
func (p piece) slice(from, to int64) piece {
	return piece{p.at + from, p.Segment.Slice(from, to)}
}

// dataOf yields the parts of a piece in a file that are not holes of that file:
// a preallocated image has holes where its tables promise data.
func dataOf(p piece) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		if p.File.DiskUsage() >= p.File.Size() {
			yield(p, nil)
			return
		}
		for from := int64(0); from < p.Length; {
			start, end, err := p.File.NextData(p.Offset + from)
			if err != nil {
				yield(piece{}, err)
				return
			}
			start, end = start-p.Offset, min(end-p.Offset, p.Length)
			if start >= p.Length || start < end && !yield(p.slice(start, end), nil) {
				return
			}
			from = end
		}
	}
}

// alignedPart returns the part [from, to) of a run of length bytes that can be
// cloned from offset src to offset dst: both ends of it are multiples of block
// in both files. It is empty when the offsets differ within a block. (The end
// of a file could be cloned, too; less than a block of it is not worth the
// rules for that.)
func alignedPart(dst, src, length, block int64) (from, to int64) {
	if dst%block != src%block {
		return 0, 0
	}
	from = (block - dst%block) % block
	to = (dst+length)/block*block - dst
	if from >= to {
		return 0, 0
	}
	return from, to
}
