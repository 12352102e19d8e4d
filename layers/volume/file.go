package volume

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// Source is what a [File] reads from. An *os.File is one; tests put one between
// that fails.
type Source interface {
	io.ReaderAt
	io.Seeker
	io.Closer
	Stat() (os.FileInfo, error)
	// Fd is the descriptor, for locks and for copies within the kernel.
	Fd() uintptr
}

var _ Source = (*os.File)(nil)

// File is a file of a volume, open for reading. Its size is the one it had
// when it was opened. Safe for concurrent use.
type File struct {
	// Read only after NewFile.
	path    string
	src     Source
	fd      int
	size    int64
	modTime time.Time
	blocks  int64
}

// Open opens the file at path for reading, without waiting for a FIFO's writer.
func Open(path string) (*os.File, error) { return openNonblock(path) }

// OpenFile is Open and NewFile in one.
func OpenFile(path string) (*File, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	return NewFile(path, f)
}

// NewFile takes over src, which was opened at path for reading. It closes src
// when that is not something that a disk can be in, which only regular files
// and block devices are.
func NewFile(path string, src Source) (*File, error) {
	file, err := newFile(path, src)
	if err != nil {
		src.Close()
	}
	return file, err
}

func newFile(path string, src Source) (*File, error) {
	fi, err := src.Stat()
	if err != nil {
		return nil, fmt.Errorf("%s: stat: %w", path, bareError(err))
	}
	mode := fi.Mode()
	if mode.IsDir() {
		return nil, &DirectoryError{path}
	}
	isBlock := mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0
	if !mode.IsRegular() && !isBlock {
		return nil, fmt.Errorf("%s: neither a regular file nor a block device", path)
	}
	size := fi.Size()
	if isBlock {
		if size, err = src.Seek(0, io.SeekEnd); err != nil {
			return nil, fmt.Errorf("%s: size of the device: %w", path, bareError(err))
		}
	}
	return &File{path: path, src: src, fd: int(src.Fd()), size: size, modTime: fi.ModTime(), blocks: statBlocks(fi)}, nil
}

// bareError is err without the path that package os puts before it.
func bareError(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
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

// OSFile is the file itself, for those who hand it to the kernel; nil when it is
// read through something else. It must not be closed, nor its position used.
func (f *File) OSFile() *os.File {
	file, _ := f.src.(*os.File)
	return file
}

// ReadAt reads len(p) bytes at off. Reading past the end of the file gives
// io.EOF, or io.ErrUnexpectedEOF after some bytes; errors name the file.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) {
		m, err := f.src.ReadAt(p[n:], off+int64(n))
		n += max(m, 0)
		switch {
		case n == len(p), errors.Is(err, syscall.EINTR):
		case err == nil && m <= 0:
			err = io.ErrNoProgress
			fallthrough
		case err != nil:
			if errors.Is(err, io.EOF) && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return n, &ReadError{Path: f.path, Offset: off, Length: len(p), Err: bareError(err)}
		}
	}
	return n, nil
}

// Close closes the file, which drops its locks.
func (f *File) Close() error { return f.src.Close() }

// ErrShrunk says that a file was cut off while it was open.
var ErrShrunk = errors.New("the file was truncated while it was open")

// ReadError is an error of [File.ReadAt].
type ReadError struct {
	Path string
	// Offset and Length in bytes of what was asked for.
	Offset int64
	Length int
	Err    error
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("%s: read %d bytes at offset %#x: %v", e.Path, e.Length, e.Offset, e.Err)
}

// Unwrap returns the error of the system.
func (e *ReadError) Unwrap() error { return e.Err }

// DirectoryError says that a path leads to a directory.
type DirectoryError struct{ Path string }

func (e *DirectoryError) Error() string { return e.Path + ": is a directory, not an image" }

// Hint says what can be done with a directory.
func (e *DirectoryError) Hint() string {
	return "flatimg mount " + e.Path + " MOUNTPOINT shows the images in it"
}
