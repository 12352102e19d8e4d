package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// File is a file of a volume, open for reading. Its size is the one it had
// when it was opened. Safe for concurrent use.
type File struct {
	// Read only after OpenFile.
	path    string
	f       *os.File
	fd      int
	size    int64
	modTime time.Time
	blocks  int64
}

// OpenFile opens a regular file or block device for reading. It does not wait
// for a FIFO's writer and refuses everything that has no size.
func OpenFile(path string) (*File, error) {
	f, err := openNonblock(path)
	if err != nil {
		return nil, err
	}
	return NewFile(path, f)
}

// NewFile takes over f, which was opened at path for reading, and closes it when
// it is not a file that a disk can be in.
func NewFile(path string, f *os.File) (*File, error) {
	file, err := newFile(path, f)
	if err != nil {
		f.Close()
	}
	return file, err
}

func newFile(path string, f *os.File) (*File, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	mode := fi.Mode()
	if mode.IsDir() {
		return nil, fmt.Errorf("%s: is a directory, not an image", path)
	}
	isBlock := mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0
	if !mode.IsRegular() && !isBlock {
		return nil, fmt.Errorf("%s: neither a regular file nor a block device", path)
	}
	size := fi.Size()
	if isBlock {
		if size, err = f.Seek(0, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return &File{path: path, f: f, fd: int(f.Fd()), size: size, modTime: fi.ModTime(), blocks: statBlocks(fi)}, nil
}

// Path that the file was opened with.
func (f *File) Path() string { return f.path }

// Size in bytes when it was opened.
func (f *File) Size() int64 { return f.size }

// ModTime is the modification time when it was opened.
func (f *File) ModTime() time.Time { return f.modTime }

// DiskUsage is the space in bytes that the file took when it was opened.
func (f *File) DiskUsage() int64 { return f.blocks * 512 }

// Fd is the descriptor, valid until Close.
func (f *File) Fd() int { return f.fd }

// ReadAt reads len(p) bytes at off. Reading past the end of the file gives
// io.EOF, or io.ErrUnexpectedEOF after some bytes; either error names the file.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.f.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if errors.Is(err, io.EOF) && n > 0 {
		err = io.ErrUnexpectedEOF
	}
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		err = pathErr.Err
	}
	return n, fmt.Errorf("%s: read %d bytes at offset %#x: %w", f.path, len(p), off, err)
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
