package web

import (
	"io"
	"sync"
)

// CountingBody is the body of a request. The transport may still read it, from
// another goroutine, when the answer is there; [CountingBody.End] ends that, so
// that what counts the bytes can be looked at.
type CountingBody struct {
	mu   sync.Mutex
	R    io.Reader // nil: ended
	read int64     // bytes
}

var _ = (io.ReadCloser)((*CountingBody)(nil))

// Read implements [io.Reader].
func (b *CountingBody) Read(p []byte) (int, error) {
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
func (b *CountingBody) End() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.R = nil
	return b.read
}

// Close implements [io.Closer].
func (b *CountingBody) Close() error {
	b.End()
	return nil
}
