package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openNonblock opens path so that a FIFO or a device without medium cannot
// make the open wait. O_NONBLOCK has no effect on reads of regular files.
func openNonblock(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	// Blocking mode again: Go would register a non-blocking descriptor with
	// its poller.
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func statBlocks(fi os.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks
	}
	return 0
}

// NextData returns the first run of data at or after off: [start, end). Both
// are the file's size when there is none. A file system that knows no holes
// reports the whole file as data. A file that has become shorter is an error,
// else what it lacks would be taken for a hole.
func (f *File) NextData(off int64) (start, end int64, err error) {
	if off >= f.size {
		return f.size, f.size, nil
	}
	// This moves the descriptor's position, which nobody else uses: reads are
	// pread and splice with offsets.
	start, err = f.src.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return f.size, f.size, f.checkSize()
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		return off, f.size, nil
	case err != nil:
		return 0, 0, fmt.Errorf("%s: seek to data from offset %#x: %w", f.path, off, bareError(err))
	}
	end, err = f.src.Seek(start, unix.SEEK_HOLE)
	if errors.Is(err, unix.ENXIO) { // cut off since the first seek
		return f.size, f.size, f.checkSize()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%s: seek to a hole from offset %#x: %w", f.path, start, bareError(err))
	}
	return min(start, f.size), min(end, f.size), nil
}

// checkSize fails when the file is shorter than it was when it was opened.
func (f *File) checkSize() error {
	now, err := f.src.Seek(0, io.SeekEnd) // also that of a block device
	switch {
	case err != nil:
		return fmt.Errorf("%s: seek to the end: %w", f.path, bareError(err))
	case now < f.size:
		return fmt.Errorf("%s: %w: it had %d bytes, and has %d", f.path, ErrShrunk, f.size, now)
	}
	return nil
}
