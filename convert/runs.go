package convert

import "iter"

// Run is a run of bytes of a target that are not known to be zeros.
type Run struct {
	// Offset and Length in bytes of the file; Length is at least 1.
	Offset, Length int64
}

// Sparse is implemented by targets that know where their data is without
// resolving segments. A target without it is taken as data throughout.
type Sparse interface {
	// DataRuns yields what is not [layers.Zeros] at and after off, in order
	// and without overlap; neighbours may touch. After an error the iteration
	// ends. off must lie within the size.
	DataRuns(off int64) iter.Seq2[Run, error]
}

// DataRuns yields the runs of data of t at and after off, in order, with a hole
// between any two. They are resolved while the loop runs: a long hole costs
// what the offset map's extents in it cost, not its length.
func DataRuns(t Target, off int64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		if err := checkRange(off, 0, t.Size()); err != nil {
			yield(Run{}, err)
			return
		}
		sparse, ok := t.(Sparse)
		if !ok {
			if off < t.Size() {
				yield(Run{off, t.Size() - off}, nil)
			}
			return
		}
		var last Run
		for r, err := range sparse.DataRuns(off) {
			switch {
			case err != nil:
				yield(Run{}, err)
				return
			case last.Length > 0 && last.Offset+last.Length == r.Offset:
				last.Length += r.Length
				continue
			case last.Length > 0 && !yield(last, nil):
				return
			}
			last = r
		}
		if last.Length > 0 {
			yield(last, nil)
		}
	}
}

// NextData returns the first run of data of t at or after off, [start, end), as
// SEEK_DATA and SEEK_HOLE need it. Both are the size when there is none.
func NextData(t Target, off int64) (start, end int64, err error) {
	if off >= t.Size() {
		return t.Size(), t.Size(), nil
	}
	for r, err := range DataRuns(t, off) {
		return r.Offset, r.Offset + r.Length, err
	}
	return t.Size(), t.Size(), nil
}

// Allocated returns how many bytes of t are not known to be zeros.
func Allocated(t Target) (int64, error) {
	var sum int64
	for r, err := range DataRuns(t, 0) {
		if err != nil {
			return 0, err
		}
		sum += r.Length
	}
	return sum, nil
}
