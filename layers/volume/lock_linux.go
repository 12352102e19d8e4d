package volume

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// QEMU marks what it does with an image file by locks of one byte (raw_lock_*
// in QEMU's block/file-posix.c): the byte held+i says "I use permission i", the
// byte unshared+i "nobody else may use permission i".
const (
	lockHeld     = 100 // RAW_LOCK_PERM_BASE
	lockUnshared = 200 // RAW_LOCK_SHARED_BASE

	permRead   = 0 // BLK_PERM_CONSISTENT_READ
	permWrite  = 1 // BLK_PERM_WRITE
	permResize = 3 // BLK_PERM_RESIZE
)

// ErrInUse says that another process writes to an image, or lets nobody read it.
var ErrInUse = errors.New("in use by another process")

// Sharing says what others may do with a file.
type Sharing uint8

const (
	// Readers: nobody may write to the file or resize it until it is closed.
	Readers Sharing = iota
	// Writers: somebody may write to it.
	Writers
	// Look keeps nobody away, but fails like Readers.
	Look
)

// Lock marks the file as QEMU does for a reader, until Close. The error wraps
// [ErrInUse] when another process does what is not to be shared, or lets nobody
// read. With [Writers] the result says whether somebody writes to it. On a file
// system without locks nothing is marked. After an error the file must be
// closed, which drops what was marked.
func (f *File) Lock(sharing Sharing) (hasWriter bool, err error) {
	var marks []int64
	switch sharing {
	case Readers:
		marks = []int64{lockHeld + permRead, lockUnshared + permWrite, lockUnshared + permResize}
	case Writers:
		marks = []int64{lockHeld + permRead}
	}
	// First our own marks, then the look at those of others: whoever does the
	// same at this moment is seen by one of us at least.
	for _, at := range marks {
		switch err := f.markLock(at); {
		case err == nil:
		case withoutLocks(err):
			return false, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return false, fmt.Errorf("%s: %w", f.path, ErrInUse)
		default:
			return false, fmt.Errorf("%s: lock byte %d: %w", f.path, at, err)
		}
	}
	unreadable, err := f.isLocked(lockUnshared + permRead)
	if err != nil {
		return false, err
	}
	for _, at := range []int64{lockHeld + permWrite, lockHeld + permResize} {
		writer, err := f.isLocked(at)
		if err != nil {
			return false, err
		}
		hasWriter = hasWriter || writer
	}
	if unreadable || hasWriter && sharing != Writers {
		return hasWriter, fmt.Errorf("%s: %w", f.path, ErrInUse)
	}
	return hasWriter, nil
}

// markLock sets a lock for reading on one byte, without waiting.
func (f *File) markLock(at int64) error {
	lock := unix.Flock_t{Type: unix.F_RDLCK, Whence: unix.SEEK_SET, Start: at, Len: 1}
	return unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_SETLK, &lock)
}

// isLocked says whether somebody else has a lock on a byte: whether one for
// writing could not be set.
func (f *File) isLocked(at int64) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET, Start: at, Len: 1}
	if err := unix.FcntlFlock(uintptr(f.fd), unix.F_OFD_GETLK, &lock); err != nil {
		if withoutLocks(err) {
			return false, nil
		}
		return false, fmt.Errorf("%s: look at lock byte %d: %w", f.path, at, err)
	}
	return lock.Type != unix.F_UNLCK, nil
}

// withoutLocks says whether an error means that the file system has no locks.
func withoutLocks(err error) bool {
	return errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS)
}
