package area

import (
	"context"
	"io"
	"os"

	"flatimg/layers/volume"
)

// output is what is done to the file that is filled; tests put one between that
// fails. Offsets and lengths are in bytes.
type output interface {
	io.WriterAt
	Truncate(size int64) error
	// clone and copyRange bring length bytes of a source file to offset at.
	clone(at int64, from *volume.File, off, length int64) error
	copyRange(at int64, from *volume.File, off, length int64) error
	// flush makes the file, which has size bytes, durable.
	flush(ctx context.Context, size int64) error
}

// outputFile is a file as an output.
type outputFile struct{ *os.File }

var _ = (output)(outputFile{})

func (f outputFile) clone(at int64, from *volume.File, off, length int64) error {
	return cloneRange(int(f.Fd()), at, from.Fd(), off, length)
}

func (f outputFile) copyRange(at int64, from *volume.File, off, length int64) error {
	return copyRange(int(f.Fd()), at, from.Fd(), off, length)
}

func (f outputFile) flush(ctx context.Context, size int64) error { return flush(ctx, f.File, size) }
