package servers

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// Limits of a multipart upload (Amazon S3 User Guide, "Amazon S3 multipart
// upload limits").
const (
	s3MaxParts  = 10_000
	s3MaxObject = 5 << 40 // 5 TiB
	s3MinPart   = 5 << 20
	s3MaxPart   = 5 << 30
)

const (
	// s3Part is the size of parts where 10,000 of them suffice, to 156 GiB. A
	// smaller one costs more requests, a larger one more memory and more to
	// send again.
	s3Part = 16 << 20
	// s3MostMemory is the most bytes that parts may take in memory; parts that
	// need more are read twice, for their checksum and for sending.
	s3MostMemory = 96 << 20
	// s3Scratch is what of a part is hashed at a time: the caches hold what is
	// hashed after it was read.
	s3Scratch = 256 << 10
)

// s3PartSize returns the size of all parts but the last of a file of size bytes.
func s3PartSize(size int64) int64 {
	const unit = 1 << 20
	least := (size + s3MaxParts - 1) / s3MaxParts
	return max(s3Part, (least+unit-1)/unit*unit)
}

// s3PartCount returns how many parts of partSize bytes a file has. An empty file
// has an empty one.
func s3PartCount(size, partSize int64) int { return int(max(1, (size+partSize-1)/partSize)) }

// s3Memory is that of a worker. A part is not on the heap, which would grow to
// twice as much before it is collected.
type s3Memory struct {
	part    []byte // nil where parts are read twice
	scratch []byte
}

// newS3Memory returns the memory for parts of size bytes that so many workers
// send at a time.
func newS3Memory(size int64, workers int) (*s3Memory, error) {
	m := &s3Memory{scratch: make([]byte, s3Scratch)}
	if size == 0 || int64(workers)*size > s3MostMemory {
		return m, nil
	}
	var err error
	m.part, err = unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, lasting{fmt.Errorf("memory for a part of %d bytes: %w", size, err)}
	}
	return m, nil
}

// free gives the memory back. No reader of it may go on.
func (m *s3Memory) free() {
	if m.part != nil {
		unix.Munmap(m.part)
	}
}

// s3Section is a part of a source: the bytes [off, off+size), holes as zeros.
type s3Section struct {
	bytes     io.ReaderAt // by offsets of the source
	off, size int64
	data      []chunk // of it, in order
	scratch   []byte  // for checksums
}

// newS3Section uses the buffers of the worker that sends the part until the
// next one.
func newS3Section(src Source, off, size int64, m *s3Memory) (*s3Section, error) {
	s := &s3Section{bytes: src, off: off, size: size, scratch: m.scratch}
	for at := off; at < off+size; {
		start, end, err := src.NextData(at)
		if err != nil {
			return nil, lasting{err}
		}
		end = min(end, off+size)
		if start < end {
			s.data = append(s.data, chunk{start, end - start})
		}
		at = max(start, end)
	}
	if m.part == nil {
		return s, nil
	}
	for _, c := range s.data {
		if err := readSource(src, m.part[c.off-off:][:c.length], c.off); err != nil {
			return nil, err
		}
	}
	s.bytes = s3Buffer{m.part, off}
	return s, nil
}

// s3Buffer is a part in memory; off is where in the source it begins.
type s3Buffer struct {
	b   []byte
	off int64
}

func (b s3Buffer) ReadAt(p []byte, off int64) (int, error) { return copy(p, b.b[off-b.off:]), nil }

// dataSize returns how many bytes of the part are not holes.
func (s *s3Section) dataSize() (sum int64) {
	for _, c := range s.data {
		sum += c.length
	}
	return sum
}

// sum returns a checksum of the part.
func (s *s3Section) sum(h hash.Hash) ([]byte, error) {
	r := &s3Reader{section: s, data: s.data}
	_, err := io.CopyBuffer(h, r, s.scratch)
	return h.Sum(nil), err
}

// s3Reader reads a part once for sending. It may be read by a goroutine that
// nobody can wait for until it is ended.
type s3Reader struct {
	section *s3Section
	// sent, which may be nil, counts data that is read.
	sent func(n int64)

	mu    sync.Mutex
	at    int64   // bytes of the part that are read
	data  []chunk // that ends after at
	count int64   // bytes of data that are read
	ended bool
}

var errS3ReaderEnded = errors.New("sending has ended")

func (r *s3Reader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.section
	switch {
	case r.ended:
		return 0, errS3ReaderEnded
	case r.at == s.size:
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.size-r.at)]
	off := s.off + r.at
	switch {
	case len(r.data) == 0:
		clear(p)
	case off < r.data[0].off:
		p = p[:min(int64(len(p)), r.data[0].off-off)]
		clear(p)
	default:
		end := r.data[0].off + r.data[0].length
		p = p[:min(int64(len(p)), end-off)]
		if n, err := s.bytes.ReadAt(p, off); n < len(p) {
			return 0, lasting{fmt.Errorf("read what is to be sent at offset %#x: %w", off, err)}
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
func (r *s3Reader) end(arrived bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	if !arrived && r.sent != nil && r.count > 0 {
		r.sent(-r.count)
	}
}
