package area

import (
	"iter"

	"flatimg/convert"
)

// spanSize is the most bytes of a target that one worker takes at a time. It
// bounds the memory for segments, the time until an interrupt is seen, and how
// far apart the workers write; smaller ones cut clones into more pieces.
const spanSize = 16 << 20

// span is a range of a target in bytes.
type span struct{ off, length int64 }

// spans yields ranges that cover all data of t, in order, each of at most
// spanSize bytes. Near runs of data share a span, with the holes between them;
// a long hole is in none.
func spans(t convert.Target) iter.Seq2[span, error] {
	return func(yield func(span, error) bool) {
		var s span
		for run, err := range convert.DataRuns(t, 0) {
			if err != nil {
				yield(span{}, err)
				return
			}
			for run.Length > 0 {
				n := min(run.Length, s.off+spanSize-run.Offset)
				if s.length == 0 || n <= 0 {
					if s.length > 0 && !yield(s, nil) {
						return
					}
					s = span{off: run.Offset}
					n = min(run.Length, spanSize)
				}
				s.length = run.Offset + n - s.off
				run.Offset += n
				run.Length -= n
			}
		}
		if s.length > 0 {
			yield(s, nil)
		}
	}
}
