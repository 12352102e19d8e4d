package area

import (
	"io"

	"golang.org/x/sys/unix"
)

// copyRange copies length bytes at srcOff of src to dst at dstOff inside the
// kernel (copy_file_range(2)). io.ErrUnexpectedEOF: src has ended.
func copyRange(dst int, dstOff int64, src int, srcOff, length int64) error {
	for length > 0 {
		var n int
		err := ignoringEINTR(func() (err error) {
			n, err = unix.CopyFileRange(src, &srcOff, dst, &dstOff, int(length), 0)
			return err
		})
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		length -= int64(n)
	}
	return nil
}
