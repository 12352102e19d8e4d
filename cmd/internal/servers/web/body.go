package web

import (
	"bufio"
	"errors"
	"io"
	"sync"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// BodyBuffer is how much of a source is read at a time; net/http asks for
	// 32 KiB, which is little for a file that is computed while it is read.
	BodyBuffer = 1 << 20
	// SmallHole is the longest hole in bytes that is sent as zeros: a request of
	// its own would take longer.
	SmallHole = 64 << 10
)

var errClosedBody = errors.New("closed")

// ErrEarly is the error for a body that was not wanted to its end.
var ErrEarly = errors.New("the server has answered before it had everything")

// Piece is a range of a source, [start, end).
type Piece struct{ Start, End int64 }

// EachPiece calls f for the data of src at and after from, in order, in pieces
// of at most size bytes. Holes of up to gap bytes between data are part of a
// piece.
func EachPiece(src servers.Source, from, size, gap int64, f func(Piece) error) error {
	var p Piece // not told yet
	tell := func() error {
		for ; p.Start < p.End; p.Start += size {
			if err := f(Piece{p.Start, min(p.End, p.Start+size)}); err != nil {
				return err
			}
		}
		return nil
	}
	err := transfer.EachRun(src, from, func(start, end int64) error {
		if p.End > p.Start && start-p.End <= gap {
			p.End = end
		} else {
			if err := tell(); err != nil {
				return err
			}
			p = Piece{start, end}
		}
		// Only the last piece may still grow.
		for ; p.End-p.Start > size; p.Start += size {
			if err := f(Piece{p.Start, p.Start + size}); err != nil {
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
	log servers.Log

	mu     sync.Mutex
	r      *bufio.Reader
	raw    PieceReader
	told   int64 // bytes of data that the log knows of
	closed bool
}

// newBody returns the body of a request with a piece of src; log is told of it.
func newBody(src servers.Source, p Piece, log servers.Log) *body {
	b := &body{log: log, raw: PieceReader{Src: src, Piece: p}}
	b.r = bufio.NewReaderSize(&b.raw, int(max(16, min(BodyBuffer, p.End-p.Start))))
	return b
}

// Read implements [io.Reader].
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

// Complete says whether all has been read.
func (b *body) Complete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.raw.Start == b.raw.End && b.r.Buffered() == 0
}

// takeBack takes from the log what was sent in vain.
func (b *body) takeBack() {
	b.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log.Sent(-b.told)
	b.told = 0
}

// PieceReader reads a piece, which becomes what is left of it.
type PieceReader struct {
	Src servers.Source
	Piece
	run  Piece // of data, the next one
	data int64 // bytes of data that were read
}

// Read implements [io.Reader].
func (r *PieceReader) Read(p []byte) (int, error) {
	if r.Start == r.End {
		return 0, io.EOF
	}
	if r.Start >= r.run.End {
		start, end, err := r.Src.NextData(r.Start)
		if err != nil {
			return 0, transfer.Lasting(err)
		}
		if end <= r.Start {
			start, end = r.End, r.End
		}
		r.run = Piece{start, end}
	}
	if hole := min(r.run.Start, r.End) - r.Start; hole > 0 {
		n := min(int64(len(p)), hole)
		clear(p[:n])
		r.Start += n
		return int(n), nil
	}
	n := min(int64(len(p)), r.run.End-r.Start, r.End-r.Start)
	if err := transfer.ReadSource(r.Src, p[:n], r.Start); err != nil {
		return 0, err
	}
	r.Start += n
	r.data += n
	return int(n), nil
}

// TellingReader is a PieceReader that calls Sent, which may be nil, for n bytes
// of data that were read.
type TellingReader struct {
	PieceReader
	Sent func(n int64)
}

// Read implements [io.Reader].
func (r *TellingReader) Read(p []byte) (int, error) {
	before := r.data
	n, err := r.PieceReader.Read(p)
	if data := r.data - before; data > 0 && r.Sent != nil {
		r.Sent(data)
	}
	return n, err
}

// Sending makes the bodies of one request that is sent once or more often.
type Sending struct {
	Src servers.Source
	Piece
	Log  servers.Log
	last *body
}

// Next makes the body for the next time; what the one before has told does not
// count.
func (s *Sending) Next() io.ReadCloser {
	s.Failed()
	s.last = newBody(s.Src, s.Piece, s.Log)
	return s.last
}

// Failed says that the last body was sent in vain.
func (s *Sending) Failed() {
	if s.last != nil {
		s.last.takeBack()
	}
}

// Complete says whether the last body has left.
func (s *Sending) Complete() bool { return s.last != nil && s.last.Complete() }
