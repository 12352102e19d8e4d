package area

import "golang.org/x/sys/unix"

// cloneRange shares length bytes at srcOff of src with dst at dstOff
// (ioctl_ficlonerange(2)); all three are multiples of the file system's block.
func cloneRange(dst int, dstOff int64, src int, srcOff, length int64) error {
	return ignoringEINTR(func() error {
		return unix.IoctlFileCloneRange(dst, &unix.FileCloneRange{
			Src_fd:      int64(src),
			Src_offset:  uint64(srcOff),
			Src_length:  uint64(length),
			Dest_offset: uint64(dstOff),
		})
	})
}

// ignoringEINTR repeats a call that a signal has interrupted.
func ignoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
