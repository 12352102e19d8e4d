package transfer

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// Pipeline reads a file far away: so many requests, of a chunk each, are under
// way at a time, and what they bring is written in order.
type Pipeline struct {
	Src      io.ReaderAt
	Requests int
	Chunk    int64 // bytes
}

// fetched is a piece that has been asked for.
type fetched struct {
	buf []byte
	err chan error // gets one when the piece is there
}

// Read writes the bytes [off, off+length) to w. It returns when no request is
// under way any more.
func (p Pipeline) Read(ctx context.Context, w io.Writer, off, length int64) error {
	group, ctx := errgroup.WithContext(ctx)
	// The queue and the piece that is being written bound the requests.
	queue := make(chan fetched, max(p.Requests-1, 1))
	spare := make(chan []byte, cap(queue)+2)
	group.Go(func() error {
		defer close(queue)
		end := off + length
		for at := off; at < end; at += p.Chunk {
			f := fetched{buf: p.buffer(spare)[:min(p.Chunk, end-at)], err: make(chan error, 1)}
			select {
			case queue <- f:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			group.Go(func() error {
				f.err <- p.fetch(f.buf, at)
				return nil
			})
		}
		return nil
	})
	group.Go(func() error {
		for f := range queue {
			if err := <-f.err; err != nil {
				return err
			}
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if _, err := w.Write(f.buf); err != nil {
				return Lasting(err)
			}
			select {
			case spare <- f.buf:
			default:
			}
		}
		return nil
	})
	return group.Wait()
}

// buffer returns one that is not in use.
func (p Pipeline) buffer(spare chan []byte) []byte {
	select {
	case b := <-spare:
		return b[:cap(b)]
	default:
		return make([]byte, p.Chunk)
	}
}

// fetch fills buf with the bytes at off.
func (p Pipeline) fetch(buf []byte, off int64) error {
	n, err := p.Src.ReadAt(buf, off)
	switch {
	case n == len(buf):
		return nil
	case err == nil || err == io.EOF:
		return Lasting(fmt.Errorf("the file ends at offset %#x: %w", off+int64(n), io.ErrUnexpectedEOF))
	}
	return err
}
