package area

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"flatimg/layers/volume"
)

// method is a way to bring bytes into a file. The zero value is the best.
type method int32

const (
	// methodClone shares the source's blocks.
	methodClone method = iota
	// methodRange copies from file to file inside the kernel.
	methodRange
	// methodWrite writes what was read or computed.
	methodWrite
)

func (m method) String() string {
	return [...]string{"clone", "copy range", "write"}[m]
}

// methods remembers the best method that works for each source file. Safe for
// concurrent use.
type methods struct{ files sync.Map } // *volume.File → *atomic.Int32

// of returns the method to try for file.
func (m *methods) of(file *volume.File) method { return method(m.entry(file).Load()) }

// failed says that with failed for file; the next one is used from now on. It
// returns false when the error says more than "not this way".
func (m *methods) failed(file *volume.File, with method, err error) bool {
	if with == methodWrite || !notThisWay(err) {
		return false
	}
	// Another worker may have seen it before.
	m.entry(file).CompareAndSwap(int32(with), int32(with)+1)
	return true
}

func (m *methods) entry(file *volume.File) *atomic.Int32 {
	if v, ok := m.files.Load(file); ok {
		return v.(*atomic.Int32)
	}
	v, _ := m.files.LoadOrStore(file, new(atomic.Int32))
	return v.(*atomic.Int32)
}

// notThisWay says whether err is one that ioctl_ficlonerange(2) and
// copy_file_range(2) give for files that they can't work on.
func notThisWay(err error) bool {
	for _, e := range []error{
		unix.EXDEV, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOTTY, unix.ENOSYS, unix.EPERM, unix.ETXTBSY, unix.EISDIR, unix.EBADF,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
