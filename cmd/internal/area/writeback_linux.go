package area

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback lets the kernel write a range back without waiting for it
// (sync_file_range(2)). It is a hint: where it does not work, the flush at the
// end takes longer.
func startWriteback(f *os.File, off, length int64) {
	unix.SyncFileRange(int(f.Fd()), off, length, unix.SYNC_FILE_RANGE_WRITE)
}

// flush makes f, a file of size bytes, durable. The data is waited for in
// pieces, since an fsync can't be interrupted.
func flush(ctx context.Context, f *os.File, size int64) error {
	const wait = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	for off := int64(0); off < size; {
		start, end, err := nextData(f, off, size)
		if err != nil {
			return err
		}
		for ; start < end; start += spanSize {
			if err := ctx.Err(); err != nil {
				return err
			}
			err := unix.SyncFileRange(int(f.Fd()), start, min(spanSize, end-start), wait)
			switch {
			case errors.Is(err, errors.ErrUnsupported):
				return f.Sync()
			case err != nil:
				// The kernel tells an error of the disk once only: not again
				// by fsync.
				return &os.PathError{Op: "flush", Path: f.Name(), Err: err}
			}
		}
		off = end
	}
	return f.Sync()
}
