package servers

import (
	"context"
	"fmt"
	"io"
	"os"

	"flatimg/cmd/internal/cli"
)

// deviceUpload writes to a block device of this machine. It has no name to
// appear under: what fails leaves a part of it there.
type deviceUpload struct {
	path string
	file *os.File
	size int64 // of the device, in bytes
}

var _ = (Checker)((*deviceUpload)(nil))
var _ = (ReadBacker)((*deviceUpload)(nil))

// openDevice opens a block device that nobody uses.
func openDevice(path string, o Options) (Upload, error) {
	if !o.Force {
		return nil, &cli.Error{
			Err:  fmt.Errorf("%s: is a block device, what is on it would be lost", path),
			Hint: "--force overwrites it",
			Code: cli.ExitExists,
		}
	}
	f, err := openExclusive(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &deviceUpload{path, f, size}, nil
}

func (u *deviceUpload) String() string { return u.path }

// Check implements [Checker].
func (u *deviceUpload) Check(_ context.Context, f File) error { return checkDisk(u.path, u.size, f) }

// Send implements [Upload]. What is a hole of src is zeroed, since anything can
// be on the device.
func (u *deviceUpload) Send(ctx context.Context, src Source, log Log) error {
	if src.Size() > u.size {
		return noSpace(u.path, src.Size(), u.size)
	}
	if err := u.zeroHoles(ctx, src); err != nil {
		return u.wrap(err)
	}
	s := sender{dst: u.file, workers: fileWorkers, chunk: fileChunk, log: log}
	if err := s.send(ctx, src); err != nil {
		return u.wrap(err)
	}
	return u.wrap(u.file.Sync())
}

func (u *deviceUpload) zeroHoles(ctx context.Context, src Source) error {
	at := int64(0)
	zero := func(to int64) error {
		// In pieces, so that an interrupt is seen.
		for at < to {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := min(zeroStep-at%zeroStep, to-at)
			if err := zeroRange(u.file, at, n); err != nil {
				return err
			}
			at += n
		}
		return nil
	}
	err := eachRun(src, 0, func(start, end int64) error {
		err := zero(start)
		at = end
		return err
	})
	if err != nil {
		return err
	}
	return zero(src.Size())
}

// zeroStep in bytes: a device without a command for it is written zeros, which
// a disk takes a second or two for.
const zeroStep = 128 << 20

// ReadBack implements [ReadBacker]. The cache of the device is dropped first, so
// that the medium is read.
func (u *deviceUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	dropCache(u.file, off, length)
	n, err := io.CopyBuffer(w, contextReader{ctx, io.NewSectionReader(u.file, off, length)}, make([]byte, fileChunk))
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	return u.wrap(err)
}

// Publish implements [Upload]: all is where it is to be.
func (u *deviceUpload) Publish(context.Context) error { return nil }

// Close implements [Upload].
func (u *deviceUpload) Close(bool) error { return u.file.Close() }

func (u *deviceUpload) wrap(err error) error { return wrapPath(u.path, err) }
