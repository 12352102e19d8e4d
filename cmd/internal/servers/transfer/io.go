package transfer

import (
	"context"
	"io"
)

// OnlyWriter hides ReadFrom, which would ignore the buffer of io.CopyBuffer.
type OnlyWriter struct{ io.Writer }

// CountingWriter counts in N the bytes that W has got. An error of W does not
// pass: it has nothing to do with the server.
type CountingWriter struct {
	W io.Writer
	N int64
}

// Write implements [io.Writer].
func (c *CountingWriter) Write(p []byte) (int, error) {
	n, err := c.W.Write(p)
	c.N += int64(n)
	if err != nil {
		err = Lasting(err)
	}
	return n, err
}

// ContextWriter fails when the context has ended.
type ContextWriter struct {
	Ctx context.Context
	io.Writer
}

// Write implements [io.Writer].
func (w ContextWriter) Write(p []byte) (int, error) {
	if w.Ctx.Err() != nil {
		return 0, context.Cause(w.Ctx)
	}
	return w.Writer.Write(p)
}

// ContextReader fails when the context has ended.
type ContextReader struct {
	Ctx context.Context
	io.Reader
}

// Read implements [io.Reader].
func (r ContextReader) Read(p []byte) (int, error) {
	if r.Ctx.Err() != nil {
		return 0, context.Cause(r.Ctx)
	}
	return r.Reader.Read(p)
}

// CopyExactly copies length bytes; -1: all.
func CopyExactly(w io.Writer, r io.Reader, length int64) error {
	if length >= 0 {
		r = io.LimitReader(r, length)
	}
	n, err := io.CopyBuffer(OnlyWriter{w}, r, make([]byte, 256<<10))
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	return err
}
