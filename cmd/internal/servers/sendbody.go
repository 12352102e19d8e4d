package servers

import (
	"io"
	"sync"
)

// sendBody is the body of a request. The transport may still read it, from
// another goroutine, when the answer is there; [sendBody.end] ends that, so that
// what counts the bytes can be looked at.
type sendBody struct {
	mu   sync.Mutex
	r    io.Reader // nil: ended
	read int64     // bytes
}

var _ = (io.ReadCloser)((*sendBody)(nil))

func (b *sendBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.r == nil {
		return 0, io.ErrClosedPipe
	}
	n, err := b.r.Read(p)
	b.read += int64(n)
	return n, err
}

// end waits until nobody reads any more, and returns how many bytes were read.
func (b *sendBody) end() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.r = nil
	return b.read
}

// Close implements io.Closer.
func (b *sendBody) Close() error {
	b.end()
	return nil
}

// tellingReader is a pieceReader that calls sent, which may be nil, for n bytes
// of data that were read.
type tellingReader struct {
	pieceReader
	sent func(n int64)
}

func (r *tellingReader) Read(p []byte) (int, error) {
	before := r.data
	n, err := r.pieceReader.Read(p)
	if data := r.data - before; data > 0 && r.sent != nil {
		r.sent(data)
	}
	return n, err
}
