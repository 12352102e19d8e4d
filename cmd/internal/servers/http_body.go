package servers

import (
	"bufio"
	"errors"
	"io"
	"sync"
)

const (
	// bodyBuffer is how much of a source is read at a time; net/http asks for
	// 32 KiB, which is little for a file that is computed while it is read.
	bodyBuffer = 1 << 20
	// smallHole is the longest hole in bytes that is sent as zeros: a request of
	// its own would take longer.
	smallHole = 64 << 10
)

// piece is a range of a source, [start, end).
type piece struct{ start, end int64 }

// eachPiece calls f for the data of src at and after from, in order, in pieces
// of at most size bytes. Holes of up to gap bytes between data are part of a
// piece.
func eachPiece(src Source, from, size, gap int64, f func(piece) error) error {
	var p piece // not told yet
	tell := func() error {
		for ; p.start < p.end; p.start += size {
			if err := f(piece{p.start, min(p.end, p.start+size)}); err != nil {
				return err
			}
		}
		return nil
	}
	err := eachRun(src, from, func(start, end int64) error {
		if p.end > p.start && start-p.end <= gap {
			p.end = end
		} else {
			if err := tell(); err != nil {
				return err
			}
			p = piece{start, end}
		}
		// Only the last piece may still grow.
		for ; p.end-p.start > size; p.start += size {
			if err := f(piece{p.start, p.start + size}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return tell()
}

// body is a piece of a source on its way. Its holes are not read. It may be
// closed while it is read, and is not read any more then.
type body struct {
	log Log

	mu     sync.Mutex
	r      *bufio.Reader
	raw    pieceReader
	told   int64 // bytes of data that the log knows of
	closed bool
}

func newBody(src Source, p piece, log Log) *body {
	b := &body{log: log, raw: pieceReader{src: src, piece: p}}
	b.r = bufio.NewReaderSize(&b.raw, int(max(16, min(bodyBuffer, p.end-p.start))))
	return b
}

var errClosedBody = errors.New("closed")

func (b *body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, errClosedBody
	}
	n, err := b.r.Read(p)
	if b.raw.data > b.told {
		b.log.Sent(b.raw.data - b.told)
		b.told = b.raw.data
	}
	return n, err
}

// Close implements [io.Closer].
func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

// complete says whether all has been read.
func (b *body) complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.raw.start == b.raw.end && b.r.Buffered() == 0
}

// takeBack takes from the log what was sent in vain.
func (b *body) takeBack() {
	b.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log.Sent(-b.told)
	b.told = 0
}

// pieceReader reads a piece, which becomes what is left of it.
type pieceReader struct {
	src Source
	piece
	run  piece // of data, the next one
	data int64 // bytes of data that were read
}

func (r *pieceReader) Read(p []byte) (int, error) {
	if r.start == r.end {
		return 0, io.EOF
	}
	if r.start >= r.run.end {
		start, end, err := r.src.NextData(r.start)
		if err != nil {
			return 0, lasting{err}
		}
		if end <= r.start {
			start, end = r.end, r.end
		}
		r.run = piece{start, end}
	}
	if hole := min(r.run.start, r.end) - r.start; hole > 0 {
		n := min(int64(len(p)), hole)
		clear(p[:n])
		r.start += n
		return int(n), nil
	}
	n := min(int64(len(p)), r.run.end-r.start, r.end-r.start)
	if err := readSource(r.src, p[:n], r.start); err != nil {
		return 0, err
	}
	r.start += n
	r.data += n
	return int(n), nil
}

// sending makes the bodies of one request that is sent once or more often.
type sending struct {
	src Source
	piece
	log  Log
	last *body
}

// next makes the body for the next time; what the one before has told does not
// count.
func (s *sending) next() io.ReadCloser {
	s.failed()
	s.last = newBody(s.src, s.piece, s.log)
	return s.last
}

// failed says that the last body was sent in vain.
func (s *sending) failed() {
	if s.last != nil {
		s.last.takeBack()
	}
}

// complete says whether the last body has left.
func (s *sending) complete() bool { return s.last != nil && s.last.complete() }
