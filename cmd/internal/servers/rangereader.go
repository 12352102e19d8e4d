package servers

import "io"

// rangeReader reads a source in order, from an offset to its end, and makes the
// zeros of holes itself.
type rangeReader struct {
	src Source
	off int64
	// start and end are those of the run of data at or after off; end is 0
	// before the first.
	start, end int64
	// sent, which may be nil, is called for each read of n bytes of data.
	sent func(n int64)
}

func (r *rangeReader) Read(p []byte) (int, error) {
	size := r.src.Size()
	if r.off >= size {
		return 0, io.EOF
	}
	if r.off >= r.end {
		var err error
		if r.start, r.end, err = r.src.NextData(r.off); err != nil {
			return 0, lasting{err}
		}
		if r.start >= r.end {
			r.start, r.end = size, size
		}
	}
	if r.off < r.start {
		n := min(int64(len(p)), r.start-r.off)
		clear(p[:n])
		r.off += n
		return int(n), nil
	}
	n := min(int64(len(p)), r.end-r.off)
	if n == 0 {
		return 0, nil
	}
	if err := readSource(r.src, p[:n], r.off); err != nil {
		return 0, err
	}
	r.off += n
	if r.sent != nil {
		r.sent(n)
	}
	return int(n), nil
}
