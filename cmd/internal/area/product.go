package area

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
	"flatimg/convert"
)

// product is a file that an export makes.
type product struct {
	// role is mainFile, or the suffix of a companion.
	role string
	// name of the file.
	name string
	maker
}

// maker knows how a file is made.
type maker interface {
	// expected is what make will write; of a file whose size is not known
	// beforehand zero.
	expected() (Stats, error)
	// make writes the file into f, which is new and empty, and makes it
	// durable.
	make(ctx context.Context, f *os.File, meter *progress.Meter) (Stats, error)
	// verify compares a file that make has made with the image and returns its
	// SHA-256.
	verify(ctx context.Context, src servers.Source, meter *progress.Meter) ([]byte, error)
}

// laidOut is a file that can be computed in any order.
type laidOut struct{ convert.Target }

func (l laidOut) expected() (Stats, error) {
	stats := Stats{Size: l.Size()}
	for run, err := range convert.DataRuns(l.Target, 0) {
		if err != nil {
			return stats, err
		}
		stats.Data += run.Length
	}
	return stats, nil
}

func (l laidOut) make(ctx context.Context, f *os.File, meter *progress.Meter) (Stats, error) {
	return Fill(ctx, f, l.Target, meter)
}

func (l laidOut) verify(ctx context.Context, src servers.Source, meter *progress.Meter) ([]byte, error) {
	return verifyFile(ctx, src, l.Target, meter)
}

// packed is a file that is compressed as a whole.
type packed struct {
	newPacker func() (convert.Packer, error)
}

// packedDisk is a whole disk, compressed.
func packedDisk(disk convert.Disk, spec convert.Spec) packed {
	return packed{func() (convert.Packer, error) { return convert.NewPacker(disk, spec) }}
}

func (p packed) expected() (Stats, error) { return Stats{}, nil }

func (p packed) make(ctx context.Context, f *os.File, meter *progress.Meter) (Stats, error) {
	size, err := p.pack(ctx, &writeback{File: f}, "compressing", meter)
	if err != nil {
		return Stats{}, err
	}
	if err := f.Truncate(size); err != nil {
		return Stats{}, err
	}
	meter.Start("flushing to disk", 0)
	return Stats{Size: size, Data: size}, flush(ctx, f, size)
}

func (p packed) pack(ctx context.Context, w io.WriterAt, stage string, meter *progress.Meter) (int64, error) {
	packer, err := p.newPacker()
	if err != nil {
		return 0, err
	}
	meter.Start(stage, packer.Data())
	return packer.Pack(ctx, w, meter.Add)
}

// verify compresses once more, which gives the same bytes.
func (p packed) verify(ctx context.Context, src servers.Source, meter *progress.Meter) ([]byte, error) {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		size, err := p.pack(ctx, comparer{src}, "verifying", meter)
		if err == nil && size != src.Size() {
			err = fmt.Errorf("the file has %d bytes, must have %d", src.Size(), size)
		}
		return err
	})
	var sum []byte
	group.Go(func() (err error) {
		sum, err = hashFile(ctx, src)
		return err
	})
	return sum, group.Wait()
}

// writeback has the kernel write back soon what is written. It is for writes that
// mostly continue each other, from one goroutine.
type writeback struct {
	*os.File
	// [start, end) was written, but its writeback not started.
	start, end int64
}

// writebackSize in bytes: small pieces would have the page in which two of them
// meet written twice, and be many system calls.
const writebackSize = 8 << 20

func (w *writeback) WriteAt(p []byte, off int64) (int, error) {
	n, err := w.File.WriteAt(p, off)
	w.end = max(w.end, off+int64(n))
	if w.end-w.start >= writebackSize {
		startWriteback(w.File, w.start, w.end-w.start)
		w.start = w.end
	}
	return n, err
}

// errContent says that two files that should be the same are not.
var errContent = errors.New("the file differs from the image")

// comparer fails when what is written differs from what is there.
type comparer struct{ servers.Source }

func (c comparer) WriteAt(p []byte, off int64) (int, error) {
	there := make([]byte, len(p))
	if n, err := c.ReadAt(there, off); n < len(there) {
		return 0, fmt.Errorf("read to verify, at offset %#x: %w", off, err)
	}
	if !bytes.Equal(there, p) {
		return 0, fmt.Errorf("%w in %d bytes at offset %#x", errContent, len(p), off)
	}
	return len(p), nil
}
