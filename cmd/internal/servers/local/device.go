package local

import (
	"context"
	"fmt"
	"io"
	"os"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// deviceUpload writes to a block device of this machine. It has no name to
// appear under: what fails leaves a part of it there.
type deviceUpload struct {
	path string
	file *os.File
	size int64 // of the device, in bytes
}

var _ = (servers.Checker)((*deviceUpload)(nil))
var _ = (servers.ReadBacker)((*deviceUpload)(nil))

// openDevice opens a block device that nobody uses.
func openDevice(path string, o servers.Options) (servers.Upload, error) {
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

// Check implements [servers.Checker].
func (u *deviceUpload) Check(_ context.Context, f servers.File) error {
	return transfer.CheckDisk(u.path, u.size, f)
}

// Send implements [servers.Upload]. What is a hole of src is zeroed, since
// anything can be on the device.
func (u *deviceUpload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	if src.Size() > u.size {
		return transfer.NoSpace(u.path, src.Size(), u.size)
	}
	if err := u.zeroHoles(ctx, src); err != nil {
		return u.wrap(err)
	}
	s := transfer.Sender{Dst: u.file, Workers: fileWorkers, Chunk: fileChunk, Log: log}
	if err := s.Send(ctx, src); err != nil {
		return u.wrap(err)
	}
	return u.wrap(u.file.Sync())
}

func (u *deviceUpload) zeroHoles(ctx context.Context, src servers.Source) error {
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
	err := transfer.EachRun(src, 0, func(start, end int64) error {
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

// ReadBack implements [servers.ReadBacker]. The cache of the device is dropped
// first, so that the medium is read.
func (u *deviceUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	dropCache(u.file, off, length)
	n, err := io.CopyBuffer(w, transfer.ContextReader{Ctx: ctx, Reader: io.NewSectionReader(u.file, off, length)}, make([]byte, fileChunk))
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	return u.wrap(err)
}

// Publish implements [servers.Upload]: all is where it is to be.
func (u *deviceUpload) Publish(context.Context) error { return nil }

// Close implements [servers.Upload].
func (u *deviceUpload) Close(bool) error { return u.file.Close() }

func (u *deviceUpload) wrap(err error) error { return wrapPath(u.path, err) }
