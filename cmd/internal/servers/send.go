package servers

import (
	"context"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// sender writes the data of a source at the same offsets of a destination.
type sender struct {
	dst io.WriterAt
	// workers write at the same time, chunk bytes each.
	workers int
	chunk   int64
	// from is the offset before which all has arrived in an earlier run.
	from int64
	log  Log
	// arrived, which may be nil, is called with the offset before which all
	// has arrived, whenever that grows.
	arrived func(off int64)
}

// chunk is a piece of data of a source, in bytes.
type chunk struct{ off, length int64 }

// send writes all data of src at and after s.from; holes are left out. Chunks
// are begun in the order of their offsets.
func (s sender) send(ctx context.Context, src Source) error {
	type begun struct {
		chunk
		*Pending
	}
	group, ctx := errgroup.WithContext(ctx)
	chunks := make(chan begun)
	f := &Front{Advance: s.arrived}
	group.Go(func() error {
		defer close(chunks)
		return eachChunk(src, s.from, s.chunk, func(c chunk) error {
			select {
			case chunks <- begun{c, f.Begin(c.off + c.length)}:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	for range s.workers {
		group.Go(func() error {
			buf := make([]byte, s.chunk)
			for c := range chunks {
				if err := s.sendChunk(src, buf[:c.length], c.off); err != nil {
					return err
				}
				f.Arrive(c.Pending)
			}
			return nil
		})
	}
	return group.Wait()
}

func (s sender) sendChunk(src Source, buf []byte, off int64) error {
	if err := readSource(src, buf, off); err != nil {
		return err
	}
	if _, err := s.dst.WriteAt(buf, off); err != nil {
		return err
	}
	s.log.Sent(int64(len(buf)))
	return nil
}

// readSource fills buf with the bytes of src at off.
func readSource(src Source, buf []byte, off int64) error {
	if n, err := src.ReadAt(buf, off); n < len(buf) {
		return lasting{fmt.Errorf("read what is to be sent at offset %#x: %w", off, err)}
	}
	return nil
}

// eachChunk calls f for the data of src at and after from in pieces of at most
// size bytes, in order.
func eachChunk(src Source, from, size int64, f func(chunk) error) error {
	return eachRun(src, from, func(start, end int64) error {
		for ; start < end; start += size {
			if err := f(chunk{start, min(size, end-start)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachRun calls f for each run of data of src at and after from, in order.
func eachRun(src Source, from int64, f func(start, end int64) error) error {
	for off := from; off < src.Size(); {
		start, end, err := src.NextData(off)
		if err != nil {
			return lasting{err}
		}
		if start < end {
			if err := f(start, end); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}

// dataBefore returns how many bytes of src before off are not holes.
func dataBefore(src Source, off int64) (int64, error) { return dataBetween(src, 0, off) }

// dataBetween returns how many bytes of src in [from, to) are not holes.
func dataBetween(src Source, from, to int64) (sum int64, err error) {
	to = min(to, src.Size())
	for at := from; at < to; {
		start, end, err := src.NextData(at)
		if err != nil {
			return 0, lasting{err}
		}
		sum += max(0, min(end, to)-start)
		at = end
	}
	return sum, nil
}

// countingLog counts what is sent, too.
type countingLog struct {
	Log
	sent atomic.Int64
}

func (l *countingLog) Sent(n int64) {
	l.sent.Add(n)
	l.Log.Sent(n)
}

// dataSize returns how many bytes of src are not holes.
func dataSize(src Source) (int64, error) { return dataBefore(src, src.Size()) }
