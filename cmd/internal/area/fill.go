package area

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/progress"
	"flatimg/convert"
	"flatimg/layers/volume"
)

// Stats says how a file was filled, in bytes.
type Stats struct {
	// Size of the file.
	Size int64
	// Data is what of it is not a hole.
	Data int64
	// Shared is what of the data takes no space, since its blocks are those of
	// a source file.
	Shared int64
}

// add adds those of a further file.
func (s *Stats) add(more Stats) {
	s.Size += more.Size
	s.Data += more.Data
	s.Shared += more.Shared
}

// filler fills one file. Its workers share it.
type filler struct {
	// Read only.
	target convert.Target
	file   *os.File
	out    output // file, unless a test sets another
	fd     int    // of file
	block  int64  // of the file system, in bytes
	meter  *progress.Meter
	// trace is called for each range that a method has brought; for tests.
	trace func(m method, at, length int64)

	methods methods
	shared  atomic.Int64

	tried map[*volume.File]bool // used by survey only
}

// Fill writes target into f, a new and empty file, and makes it durable. It
// checks first that there is space, and fails with ENOSPC if not. After an error
// the file holds anything. When ctx ends, so does Fill, within the time that
// the disk takes for some MiB.
func Fill(ctx context.Context, f *os.File, target convert.Target, meter *progress.Meter) (Stats, error) {
	return (&filler{target: target, file: f, meter: meter}).fill(ctx)
}

func (f *filler) fill(ctx context.Context) (Stats, error) {
	stats := Stats{Size: f.target.Size()}
	f.fd = int(f.file.Fd())
	if f.out == nil {
		f.out = outputFile{f.file}
	}
	f.tried = make(map[*volume.File]bool)
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.fd, &st); err != nil {
		return stats, &fs.PathError{Op: "statfs", Path: f.file.Name(), Err: err}
	}
	f.block = st.Bsize

	sum, err := f.survey(ctx)
	if err != nil {
		return stats, err
	}
	stats.Data = sum.data
	if err := f.checkSpace(sum.need); err != nil {
		return stats, err
	}
	if err := errors.Join(f.out.Truncate(0), f.out.Truncate(stats.Size)); err != nil {
		return stats, err
	}
	f.meter.Start("copying", sum.data)
	if err := f.work(ctx); err != nil {
		return stats, err
	}
	stats.Shared = f.shared.Load()
	f.meter.Start("flushing to disk", 0)
	return stats, f.out.flush(ctx, stats.Size)
}

// workers is how many spans are worked on at once: enough to keep a disk busy,
// and all processors where clusters are inflated.
func workers() int { return min(max(4, runtime.GOMAXPROCS(0)), 16) }

func (f *filler) work(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan span)
	group.Go(func() error {
		defer close(queue)
		for s, err := range spans(f.target) {
			if err != nil {
				return err
			}
			select {
			case queue <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers() {
		group.Go(func() error {
			w := worker{filler: f}
			for s := range queue {
				if err := w.fill(ctx, s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
