package servers

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
)

// openExclusive opens a block device for reading and writing, unless it is
// mounted or otherwise in use (open(2), O_EXCL).
func openExclusive(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, &cli.Error{Err: err, Hint: "unmount it, and end what uses it", Code: cli.ExitRefused}
	}
	return f, err
}

// isReadOnly says whether a device takes no writes, which opening it for writing
// does not tell (BLKROGET, block/ioctl.c).
func isReadOnly(f *os.File) bool {
	readOnly, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	return err == nil && readOnly != 0
}

// zeroRange makes a range of a device read as zeros: by giving it back where
// that promises zeros, else by the device's own command or by writing them,
// which the kernel does (fallocate(2), block/fops.c).
func zeroRange(f *os.File, off, length int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	if err != nil {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, off, length)
	}
	if err == nil {
		return nil
	}
	// Not a multiple of the device's sector, or a kernel without it.
	zeros := make([]byte, min(length, fileChunk))
	for end := off + length; off < end; off += int64(len(zeros)) {
		zeros = zeros[:min(int64(len(zeros)), end-off)]
		if _, err := f.WriteAt(zeros, off); err != nil {
			return err
		}
	}
	return nil
}

// dropCache has the kernel forget what it has cached of a range; in vain where
// it can't.
func dropCache(f *os.File, off, length int64) {
	unix.Fadvise(int(f.Fd()), off, length, unix.FADV_DONTNEED)
}
