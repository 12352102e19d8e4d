package servers

import (
	"context"
	"io"
)

// onlyWriter hides ReadFrom, which would ignore the buffer of io.CopyBuffer.
type onlyWriter struct{ io.Writer }

// countingWriter counts what w has got. An error of w does not pass: it has
// nothing to do with the server.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if err != nil {
		err = lasting{err}
	}
	return n, err
}

// contextWriter ends with the context.
type contextWriter struct {
	ctx context.Context
	io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.Writer.Write(p)
}

// contextReader ends with the context.
type contextReader struct {
	ctx context.Context
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

// copyExactly copies length bytes; -1: all.
func copyExactly(w io.Writer, r io.Reader, length int64) error {
	if length >= 0 {
		r = io.LimitReader(r, length)
	}
	n, err := io.CopyBuffer(onlyWriter{w}, r, make([]byte, 256<<10))
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	return err
}
