package convert

import (
	"context"
	"fmt"
	"io"
)

// Packer writes a disk as a file that can't be laid out beforehand, since it is
// compressed. It is used once, while the image is open.
type Packer interface {
	// Bound is the most bytes that the file can take.
	Bound() int64
	// GuestSize is the virtual size in bytes that the file will state.
	GuestSize() int64
	// Data is how many bytes of the disk will be read.
	Data() int64
	// Pack writes the file into w, which is empty, each byte at most once, from
	// one goroutine at a time and mostly in order, and returns its size; what
	// is not written reads as zeros. It compresses on
	// all processors, holds some MiB for each, and calls done with the number
	// of bytes of the disk that were dealt with. The same disk and options
	// give the same file each time. After an error w holds anything.
	Pack(ctx context.Context, w io.WriterAt, done func(n int64)) (size int64, err error)
}

// NewPacker prepares to write a disk in the format of spec, for which
// [Spec.Packed] must hold. It resolves the whole offset map, but reads no data,
// and fails as [New] does.
func NewPacker(src Disk, spec Spec) (Packer, error) {
	f, v, err := spec.resolve()
	if err != nil {
		return nil, err
	}
	if f.packs == nil || !f.packs(v) {
		return nil, fmt.Errorf("target format %s is not packed", spec)
	}
	if src, err = growAsAsked(src, spec.VirtualSize); err != nil {
		return nil, err
	}
	return f.pack(src, v)
}

// PackedError says that a target can't be shown without writing it.
type PackedError struct{ Spec Spec }

func (e *PackedError) Error() string {
	return fmt.Sprintf("target format %s can't be shown in a mount: it is compressed, so it must be written as a whole", e.Spec)
}

// Hint says what the user can do about it.
func (e *PackedError) Hint() string {
	return fmt.Sprintf("flatimg export --format %s IMAGE DEST writes it", e.Spec)
}
