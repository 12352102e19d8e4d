package transfer

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/servers"
)

// Chunk is a piece of data of a source, in bytes.
type Chunk struct{ Off, Length int64 }

// Sender writes the data of a source at the same offsets of a destination.
type Sender struct {
	Dst io.WriterAt
	// Workers write at the same time, Chunk bytes each.
	Workers int
	Chunk   int64
	// From is the offset before which all has arrived in an earlier run.
	From int64
	Log  servers.Log
	// Arrived, which may be nil, is called with the offset before which all
	// has arrived, whenever that grows.
	Arrived func(off int64)
}

// Send writes all data of src at and after s.From; holes are left out. Chunks
// are begun in the order of their offsets.
func (s Sender) Send(ctx context.Context, src servers.Source) error {
	type begun struct {
		Chunk
		*Pending
	}
	group, ctx := errgroup.WithContext(ctx)
	chunks := make(chan begun)
	f := &Front{Advance: s.Arrived}
	group.Go(func() error {
		defer close(chunks)
		return eachChunk(src, s.From, s.Chunk, func(c Chunk) error {
			select {
			case chunks <- begun{c, f.Begin(c.Off + c.Length)}:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	for range s.Workers {
		group.Go(func() error {
			buf := make([]byte, s.Chunk)
			for c := range chunks {
				if err := s.sendChunk(src, buf[:c.Length], c.Off); err != nil {
					return err
				}
				f.Arrive(c.Pending)
			}
			return nil
		})
	}
	return group.Wait()
}

func (s Sender) sendChunk(src servers.Source, buf []byte, off int64) error {
	if err := ReadSource(src, buf, off); err != nil {
		return err
	}
	if _, err := s.Dst.WriteAt(buf, off); err != nil {
		return err
	}
	s.Log.Sent(int64(len(buf)))
	return nil
}

// ReadSource fills buf with the bytes of src at off.
func ReadSource(src servers.Source, buf []byte, off int64) error {
	if n, err := src.ReadAt(buf, off); n < len(buf) {
		return Lasting(fmt.Errorf("read what is to be sent at offset %#x: %w", off, err))
	}
	return nil
}

// eachChunk calls f for the data of src at and after from in pieces of at most
// size bytes, in order.
func eachChunk(src servers.Source, from, size int64, f func(Chunk) error) error {
	return EachRun(src, from, func(start, end int64) error {
		for ; start < end; start += size {
			if err := f(Chunk{start, min(size, end-start)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// EachRun calls f for each run of data of src at and after from, in order.
func EachRun(src servers.Source, from int64, f func(start, end int64) error) error {
	for off := from; off < src.Size(); {
		start, end, err := src.NextData(off)
		if err != nil {
			return Lasting(err)
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

// DataSize returns how many bytes of src are not holes.
func DataSize(src servers.Source) (int64, error) { return DataBefore(src, src.Size()) }

// DataBefore returns how many bytes of src before off are not holes.
func DataBefore(src servers.Source, off int64) (int64, error) { return DataBetween(src, 0, off) }

// DataBetween returns how many bytes of src in [from, to) are not holes.
func DataBetween(src servers.Source, from, to int64) (sum int64, err error) {
	to = min(to, src.Size())
	for at := from; at < to; {
		start, end, err := src.NextData(at)
		if err != nil {
			return 0, Lasting(err)
		}
		sum += max(0, min(end, to)-start)
		at = end
	}
	return sum, nil
}

// NextData is that of src, also behind its end.
func NextData(src servers.Source, off int64) (start, end int64, err error) {
	if off >= src.Size() {
		return src.Size(), src.Size(), nil
	}
	return src.NextData(off)
}
