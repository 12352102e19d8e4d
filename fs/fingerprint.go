package fs

import "golang.org/x/sys/unix"

// fileID tells files apart, whatever path leads to them.
type fileID struct{ dev, ino uint64 }

// fingerprint is the state of a file; it differs after each change.
type fingerprint struct {
	id fileID
	// size in bytes; 0 for a block device.
	size int64
	// mtime and ctime in nanoseconds since the epoch.
	mtime, ctime int64
	// mode has the type and the permissions, as in stat(2).
	mode uint32
}

func fingerprintOf(st *unix.Stat_t) fingerprint {
	return fingerprint{
		id:    fileID{uint64(st.Dev), st.Ino},
		size:  st.Size,
		mtime: st.Mtim.Nano(),
		ctime: st.Ctim.Nano(),
		mode:  st.Mode,
	}
}

// statPath follows links.
func statPath(path string) (fingerprint, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fingerprint{}, err
	}
	return fingerprintOf(&st), nil
}

func statFd(fd int) (fingerprint, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fingerprint{}, err
	}
	return fingerprintOf(&st), nil
}

func (f fingerprint) isDir() bool     { return f.mode&unix.S_IFMT == unix.S_IFDIR }
func (f fingerprint) isRegular() bool { return f.mode&unix.S_IFMT == unix.S_IFREG }

// sameData says whether an open file still has the data that it had. Unlike
// equality it ignores ctime, which also changes when the file is unlinked.
func (f fingerprint) sameData(now fingerprint) bool {
	return f.size == now.size && f.mtime == now.mtime
}
