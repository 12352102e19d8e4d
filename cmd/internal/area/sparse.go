package area

import (
	"bytes"
	"context"
	"os"

	"golang.org/x/time/rate"
)

// sparseBlock in bytes is the least that is left out as a hole.
const sparseBlock = 64 << 10

// sparseWriter writes what comes in order into a file without data after its
// position, and leaves out what is zeros. Used by one goroutine.
type sparseWriter struct {
	ctx     context.Context
	file    *os.File
	off     int64 // of what comes next
	limiter *rate.Limiter
	got     func(n int64)
	// moved, which may be nil, is called with the offset before which all is
	// in the file, when it has grown by some MiB.
	moved func(off int64)
	told  int64
	err   error // of the disk
}

func (f *fetch) writer(ctx context.Context, off int64) *sparseWriter {
	return &sparseWriter{ctx: ctx, file: f.file, off: off, limiter: f.limiter, told: off, got: func(n int64) {
		f.received.Add(n)
		f.meter.Add(n)
	}}
}

// moveEvery in bytes.
const moveEvery = 4 << 20

func (w *sparseWriter) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		if w.ctx.Err() != nil {
			return written, context.Cause(w.ctx)
		}
		n := min(len(p)-written, int(sparseBlock-w.off%sparseBlock))
		if w.limiter != nil {
			if err := w.limiter.WaitN(w.ctx, n); err != nil {
				return written, err
			}
		}
		b := p[written : written+n]
		if !bytes.Equal(b, zeros[:n]) {
			if _, err := w.file.WriteAt(b, w.off); err != nil {
				w.err = err
				return written, err
			}
		}
		w.off += int64(n)
		written += n
		w.got(int64(n))
	}
	if w.off-w.told >= moveEvery {
		w.tell()
	}
	return written, nil
}

// tell says how far it is.
func (w *sparseWriter) tell() {
	if w.moved != nil && w.off > w.told {
		w.told = w.off
		w.moved(w.off)
	}
}
