package web

import (
	"io"
	"sync"
)

// SendBody is the body of a request. The transport may still read it, from
// another goroutine, when the answer is there; [SendBody.end] ends that, so that
// what counts the bytes can be looked at.
type SendBody struct {
	mu   sync.Mutex
	R    io.Reader // nil: ended
	read int64     // bytes
}

var _ = (io.ReadCloser)((*SendBody)(nil))

// Read implements [io.Reader].
func (b *SendBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.R == nil {
		return 0, io.ErrClosedPipe
	}
	n, err := b.R.Read(p)
	b.read += int64(n)
	return n, err
}

// End waits until nobody reads any more, and returns how many bytes were read.
func (b *SendBody) End() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.R = nil
	return b.read
}

// Close implements io.Closer.
func (b *SendBody) Close() error {
	b.End()
	return nil
}

// TellingReader is a PieceReader that calls sent, which may be nil, for n bytes
// of data that were read.
type TellingReader struct {
	PieceReader
	Sent func(n int64)
}

// Read implements [io.Reader].
func (r *TellingReader) Read(p []byte) (int, error) {
	before := r.data
	n, err := r.PieceReader.Read(p)
	if data := r.data - before; data > 0 && r.Sent != nil {
		r.Sent(data)
	}
	return n, err
}
