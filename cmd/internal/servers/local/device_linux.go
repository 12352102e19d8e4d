package local

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/transfer"
)

// openExclusive opens a block device for reading and writing, unless it is
// mounted or otherwise in use (open(2), O_EXCL).
func openExclusive(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, &cli.Error{Err: err, Hint: "unmount it, and end what uses it", Code: cli.ExitRefused}
	}
	if err != nil {
		return nil, err
	}
	// Linux opens a device for writing that refuses it then.
	if isReadOnly, err := unix.IoctlGetUint32(int(f.Fd()), unix.BLKROGET); err == nil && isReadOnly != 0 {
		f.Close()
		return nil, transfer.Usage(&os.PathError{Op: "open", Path: path, Err: unix.EROFS}, "allow writing with: blockdev --setrw %s", path)
	}
	return f, nil
}

// zeroAlign in bytes is a multiple of any device's sector.
const zeroAlign = 64 << 10

// zeroRange makes a range of a device read as zeros: by giving it back where
// that promises zeros, else by the device's own command or by writing them,
// which the kernel does (fallocate(2), block/fops.c) for whole sectors.
func zeroRange(f *os.File, off, length int64) error {
	end := off + length
	from, to := (off+zeroAlign-1)/zeroAlign*zeroAlign, end/zeroAlign*zeroAlign
	if from >= to {
		return writeZeros(f, off, end)
	}
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	if err != nil {
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
	}
	if err != nil {
		return writeZeros(f, off, end)
	}
	return errors.Join(writeZeros(f, off, from), writeZeros(f, to, end))
}

// writeZeros writes zeros in [off, end).
func writeZeros(f *os.File, off, end int64) error {
	zeros := make([]byte, min(end-off, fileChunk))
	for ; off < end; off += int64(len(zeros)) {
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
