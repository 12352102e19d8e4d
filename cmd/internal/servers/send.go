package servers

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// sender writes the data of a source at the same offsets of a destination.
type sender struct {
	dst io.WriterAt
	// workers write at the same time, chunk bytes each.
	workers int
	chunk   int64
	sent    func(n int64)
}

// chunk is a piece of data of a source, in bytes.
type chunk struct{ off, length int64 }

// send writes all data of src; holes are left out. Chunks are begun in the
// order of their offsets.
func (s sender) send(ctx context.Context, src Source) error {
	group, ctx := errgroup.WithContext(ctx)
	chunks := make(chan chunk)
	group.Go(func() error {
		defer close(chunks)
		return s.split(ctx, src, chunks)
	})
	for range s.workers {
		group.Go(func() error {
			buf := make([]byte, s.chunk)
			for c := range chunks {
				if err := s.sendChunk(src, buf[:c.length], c.off); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// split cuts the data of src into chunks.
func (s sender) split(ctx context.Context, src Source, chunks chan<- chunk) error {
	for off := int64(0); off < src.Size(); {
		start, end, err := src.NextData(off)
		if err != nil {
			return err
		}
		for ; start < end; start += s.chunk {
			select {
			case chunks <- chunk{start, min(s.chunk, end-start)}:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		off = end
	}
	return nil
}

func (s sender) sendChunk(src Source, buf []byte, off int64) error {
	if n, err := src.ReadAt(buf, off); n < len(buf) {
		return fmt.Errorf("read what is to be sent at offset %#x: %w", off, err)
	}
	if _, err := s.dst.WriteAt(buf, off); err != nil {
		return err
	}
	s.sent(int64(len(buf)))
	return nil
}

// dataSize returns how many bytes of src are not holes.
func dataSize(src Source) (int64, error) {
	var sum int64
	for off := int64(0); off < src.Size(); {
		start, end, err := src.NextData(off)
		if err != nil {
			return 0, err
		}
		sum += end - start
		off = end
	}
	return sum, nil
}
