package s3

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// Limits of a multipart upload (Amazon S3 User Guide, "Amazon S3 multipart
// upload limits").
const (
	maxParts  = 10_000
	maxObject = 5 << 40 // 5 TiB
	minPart   = 5 << 20
	maxPart   = 5 << 30
)

const (
	// usualPart is the size of parts where 10,000 of them suffice, to 156 GiB. A
	// smaller one costs more requests, a larger one more memory and more to
	// send again.
	usualPart = 16 << 20
	// mostMemory is the most bytes that parts may take in memory; parts that
	// need more are read twice, for their checksum and for sending.
	mostMemory = 96 << 20
	// scratchSize is what of a part is hashed at a time: the caches hold what
	// is hashed after it was read.
	scratchSize = 256 << 10
)

// partSize returns the size of all parts but the last of a file of size bytes.
func partSize(size int64) int64 {
	const unit = 1 << 20
	least := (size + maxParts - 1) / maxParts
	return max(usualPart, (least+unit-1)/unit*unit)
}

// partCount returns how many parts of partSize bytes a file has. An empty file
// has an empty one.
func partCount(size, partSize int64) int { return int(max(1, (size+partSize-1)/partSize)) }

// memory is that of a worker. A part is not on the heap, which would grow to
// twice as much before it is collected.
type memory struct {
	part    []byte // nil where parts are read twice
	scratch []byte
}

// newMemory returns the memory for parts of size bytes that so many workers
// send at a time.
func newMemory(size int64, workers int) (*memory, error) {
	m := &memory{scratch: make([]byte, scratchSize)}
	if size == 0 || int64(workers)*size > mostMemory {
		return m, nil
	}
	var err error
	m.part, err = unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, transfer.Lasting(fmt.Errorf("memory for a part of %d bytes: %w", size, err))
	}
	return m, nil
}

// free gives the memory back. No reader of it may go on.
func (m *memory) free() {
	if m.part != nil {
		unix.Munmap(m.part)
	}
}

// section is a part of a source: the bytes [off, off+size), holes as zeros.
type section struct {
	bytes     io.ReaderAt // by offsets of the source
	off, size int64
	data      []transfer.Chunk // of it, in order
	scratch   []byte           // for checksums
}

// newSection uses the buffers of the worker that sends the part until the next
// one.
func newSection(src servers.Source, off, size int64, m *memory) (*section, error) {
	s := &section{bytes: src, off: off, size: size, scratch: m.scratch}
	for at := off; at < off+size; {
		start, end, err := src.NextData(at)
		if err != nil {
			return nil, transfer.Lasting(err)
		}
		end = min(end, off+size)
		if start < end {
			s.data = append(s.data, transfer.Chunk{Off: start, Length: end - start})
		}
		at = max(start, end)
	}
	if m.part == nil {
		return s, nil
	}
	for _, c := range s.data {
		if err := transfer.ReadSource(src, m.part[c.Off-off:][:c.Length], c.Off); err != nil {
			return nil, err
		}
	}
	s.bytes = buffer{m.part, off}
	return s, nil
}

// buffer is a part in memory; off is where in the source it begins.
type buffer struct {
	b   []byte
	off int64
}

func (b buffer) ReadAt(p []byte, off int64) (int, error) { return copy(p, b.b[off-b.off:]), nil }

// dataSize returns how many bytes of the part are not holes.
func (s *section) dataSize() (sum int64) {
	for _, c := range s.data {
		sum += c.Length
	}
	return sum
}

// sum returns a checksum of the part.
func (s *section) sum(h hash.Hash) ([]byte, error) {
	r := &reader{section: s, data: s.data}
	_, err := io.CopyBuffer(h, r, s.scratch)
	return h.Sum(nil), err
}

// reader reads a part once for sending. It may be read by a goroutine that
// nobody can wait for until it is ended.
type reader struct {
	section *section
	// sent, which may be nil, counts data that is read.
	sent func(n int64)

	mu    sync.Mutex
	at    int64            // bytes of the part that are read
	data  []transfer.Chunk // that ends after at
	count int64            // bytes of data that are read
	ended bool
}

var errReaderEnded = errors.New("sending has ended")

func (r *reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.section
	switch {
	case r.ended:
		return 0, errReaderEnded
	case r.at == s.size:
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.size-r.at)]
	off := s.off + r.at
	switch {
	case len(r.data) == 0:
		clear(p)
	case off < r.data[0].Off:
		p = p[:min(int64(len(p)), r.data[0].Off-off)]
		clear(p)
	default:
		end := r.data[0].Off + r.data[0].Length
		p = p[:min(int64(len(p)), end-off)]
		if n, err := s.bytes.ReadAt(p, off); n < len(p) {
			return 0, transfer.Lasting(fmt.Errorf("read what is to be sent at offset %#x: %w", off, err))
		}
		if off+int64(len(p)) == end {
			r.data = r.data[1:]
		}
		r.count += int64(len(p))
		if r.sent != nil {
			r.sent(int64(len(p)))
		}
	}
	r.at += int64(len(p))
	return len(p), nil
}

// end ends reading. What was counted is taken back unless all has arrived.
func (r *reader) end(arrived bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if !arrived && r.sent != nil && r.count > 0 {
		r.sent(-r.count)
	}
}
