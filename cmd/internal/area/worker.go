package area

import (
	"context"
	"fmt"

	"flatimg/layers"
)

const (
	// bufferSize is the most that a worker writes at once.
	bufferSize = 1 << 20
	// rangeMin is the least for which copy_file_range pays; less is gathered
	// in the buffer. Measured on ext4: with 4 KiB clusters all over the layers
	// a quarter faster than without the buffer, with 64 KiB clusters several
	// times faster than with the buffer only.
	rangeMin = 64 << 10
)

// worker fills one span after the other. Used by one goroutine.
type worker struct {
	*filler
	segments []layers.Segment

	buf []byte // bytes that are not written yet
	at  int64  // where the first of them belongs in the target
}

func (w *worker) fill(ctx context.Context, s span) error {
	var err error
	if w.segments, err = w.target.AppendSegments(w.segments[:0], s.off, s.length); err != nil {
		return err
	}
	for p := range pieces(s.off, w.segments) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if p.Origin == layers.InFile {
			err = w.bring(p)
		} else {
			err = w.gather(p)
		}
		if err != nil {
			return err
		}
	}
	if err := w.write(); err != nil {
		return err
	}
	startWriteback(w.file, s.off, s.length)
	return nil
}

// bring brings a piece that lies in a file, with the best method that works.
func (w *worker) bring(p piece) error {
	if w.methods.of(p.File) != methodClone {
		return w.copy(p)
	}
	from, to := alignedPart(p.at, p.Offset, p.Length, w.block)
	if from == to {
		return w.copy(p)
	}
	body := p.slice(from, to)
	err := w.out.clone(body.at, p.File, body.Offset, body.Length)
	switch {
	case err == nil:
		w.shared.Add(body.Length)
		w.done(methodClone, body.at, body.Length)
	case w.methods.failed(p.File, methodClone, err):
		return w.copy(p)
	default:
		return pieceError(body, "clone", err)
	}
	if from > 0 {
		if err := w.copy(p.slice(0, from)); err != nil {
			return err
		}
	}
	if to < p.Length {
		return w.copy(p.slice(to, p.Length))
	}
	return nil
}

// copy copies the data of a piece that lies in a file.
func (w *worker) copy(p piece) error {
	for d, err := range dataOf(p) {
		if err != nil {
			return err
		}
		if err := w.copyData(d); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) copyData(p piece) error {
	if p.Length < rangeMin || w.methods.of(p.File) > methodRange {
		return w.gather(p)
	}
	err := w.out.copyRange(p.at, p.File, p.Offset, p.Length)
	switch {
	case err == nil:
		w.done(methodRange, p.at, p.Length)
		return nil
	case w.methods.failed(p.File, methodRange, err):
		return w.gather(p)
	}
	return pieceError(p, "copy", err)
}

func pieceError(p piece, what string, err error) error {
	return fmt.Errorf("%s %d bytes at offset %#x of %s: %w", what, p.Length, p.Offset, p.File.Path(), err)
}

// gather reads a piece into the buffer, which is written when it is full or
// when the next piece does not continue it.
func (w *worker) gather(p piece) error {
	if w.buf == nil {
		w.buf = make([]byte, 0, bufferSize)
	}
	for {
		if len(w.buf) == cap(w.buf) || w.at+int64(len(w.buf)) != p.at {
			if err := w.write(); err != nil {
				return err
			}
			w.at = p.at
		}
		n := min(p.Length, int64(cap(w.buf)-len(w.buf)))
		part := w.buf[len(w.buf) : len(w.buf)+int(n)]
		if err := p.slice(0, n).ReadInto(part); err != nil {
			return err
		}
		w.buf = w.buf[:len(w.buf)+int(n)]
		if n == p.Length {
			break
		}
		p = p.slice(n, p.Length)
	}
	return nil
}

// write writes what the buffer holds.
func (w *worker) write() error {
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := w.out.WriteAt(w.buf, w.at); err != nil {
		return err
	}
	w.done(methodWrite, w.at, int64(len(w.buf)))
	w.buf = w.buf[:0]
	return nil
}

func (w *worker) done(m method, at, length int64) {
	w.meter.Add(length)
	if w.trace != nil {
		w.trace(m, at, length)
	}
}
