package fs

import (
	"fmt"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/splice"
	"golang.org/x/sys/unix"

	"flatimg/layers"
	"flatimg/layers/volume"
)

const (
	// maxRead is the largest request in bytes. One of 1 MiB does not fit with
	// its header in a pipe of 1 MiB, the most that a user may have
	// (/proc/sys/fs/pipe-max-size): each read would fail to splice first.
	maxRead = 512 << 10
	// spliceFrom is the number of bytes in files from which splicing costs
	// less than reading: a splice is more system calls, a read one more copy
	// (measured: even at 256 KiB, 1.4 times the CPU time at 32 KiB).
	spliceFrom = 256 << 10
	// splicePiece is the same for each piece, on average.
	splicePiece = 16 << 10
)

// zeros is what holes read as, for replies from memory.
var zeros [64 << 10]byte

// memory is a reply whose bytes are in memory. go-fuse sends it with one
// writev; for its own ReadResultData it would get and clear a pipe first.
type memory struct{ parts [][]byte }

// inMemory returns a reply of the bytes of p.
func inMemory(p []byte) *memory { return &memory{[][]byte{p}} }

// Size implements [fuse.ReadResult].
func (m *memory) Size() int {
	n := 0
	for _, p := range m.parts {
		n += len(p)
	}
	return n
}

// Slices makes go-fuse use writev.
func (m *memory) Slices() ([][]byte, fuse.Status) { return m.parts, fuse.OK }

// Bytes implements [fuse.ReadResult].
func (m *memory) Bytes(buf []byte) ([]byte, fuse.Status) {
	buf = buf[:0]
	for _, p := range m.parts {
		buf = append(buf, p...)
	}
	return buf, fuse.OK
}

// Done implements [fuse.ReadResult].
func (m *memory) Done() {}

// reply returns a reply that consists of the segments. dest is memory for it,
// of the same length.
func (c *catalog) reply(segments []layers.Segment, dest []byte) (fuse.ReadResult, error) {
	var inFiles, files int64
	for _, s := range segments {
		if s.Origin == layers.InFile {
			inFiles += s.Length
			files++
		}
	}
	switch {
	case files == 0:
		return fromMemory(segments)
	case inFiles >= spliceFrom && inFiles/files >= splicePiece && c.zeroFile >= 0:
		result, err := c.fromPipe(segments, int64(len(dest)))
		if result != nil || err != nil {
			return result, err
		}
	}
	if err := layers.ReadSegments(dest, segments); err != nil {
		return nil, err
	}
	return inMemory(dest), nil
}

// fromMemory returns a reply of segments that are not in files, without
// copying them.
func fromMemory(segments []layers.Segment) (fuse.ReadResult, error) {
	parts := make([][]byte, 0, len(segments)+maxRead/len(zeros))
	for _, s := range segments {
		switch s.Origin {
		case layers.Literal:
			parts = append(parts, s.Bytes)
		case layers.InCluster:
			b, err := s.Inflated()
			if err != nil {
				return nil, err
			}
			parts = append(parts, b)
		default:
			for left := s.Length; left > 0; left -= int64(len(zeros)) {
				parts = append(parts, zeros[:min(left, int64(len(zeros)))])
			}
		}
	}
	return &memory{parts}, nil
}

// fromPipe returns a reply of n bytes in a pipe, or nil if they do not fit in
// one: writing to a full pipe would block for ever.
func (c *catalog) fromPipe(segments []layers.Segment, n int64) (fuse.ReadResult, error) {
	slots := slotsOf(segments)
	if slots > replySlots(n) {
		return nil, nil
	}
	pipe, err := splice.Get()
	if err != nil {
		return nil, nil // out of descriptors; reading needs none
	}
	// A user may be at the limit of /proc/sys/fs/pipe-user-pages-soft.
	if pipe.Grow(int(slots*pageSize)) != nil || int64(pipe.Cap()) < slots*pageSize {
		splice.Done(pipe)
		return nil, nil
	}
	for _, s := range segments {
		if err := c.load(pipe, s); err != nil {
			splice.Done(pipe)
			return nil, err
		}
	}
	return fuse.ReadResultPipe(pipe, int(n)), nil
}

// load puts a segment into a pipe that has room for it.
func (c *catalog) load(pipe *splice.Pair, s layers.Segment) error {
	switch s.Origin {
	case layers.InFile:
		return s.Fault(loadFile(pipe, s.File.Fd(), s.Offset, s.Length, s.File.Path()))
	case layers.Zeros:
		return loadFile(pipe, c.zeroFile, 0, s.Length, "zeros")
	case layers.InCluster:
		b, err := s.Inflated()
		if err != nil {
			return err
		}
		return loadBytes(pipe, b)
	}
	return loadBytes(pipe, s.Bytes)
}

func loadFile(pipe *splice.Pair, fd int, off, length int64, path string) error {
	for length > 0 {
		n, err := pipe.LoadFromAt(uintptr(fd), int(length), off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return &volume.ReadError{Path: path, Offset: off, Length: int(length), Err: err}
		case n == 0:
			return &volume.ReadError{Path: path, Offset: off, Length: int(length), Err: io.ErrUnexpectedEOF}
		}
		off, length = off+int64(n), length-int64(n)
	}
	return nil
}

func loadBytes(pipe *splice.Pair, b []byte) error {
	for len(b) > 0 {
		n, err := pipe.Write(b)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("write to a pipe: %w", err)
		}
		b = b[max(n, 0):]
	}
	return nil
}

// newZeroFile returns a file in memory that reads as zeros and takes no space,
// or -1.
func newZeroFile() int {
	fd, err := unix.MemfdCreate("flatimg-zeros", unix.MFD_CLOEXEC)
	if err != nil {
		return -1
	}
	if err := unix.Ftruncate(fd, maxRead); err != nil {
		unix.Close(fd)
		return -1
	}
	return fd
}
