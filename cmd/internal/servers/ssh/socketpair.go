package ssh

import (
	"os"

	"golang.org/x/sys/unix"
)

// socketPair returns two connected sockets: ours, and one to be the standard
// input of a process. Its buffer is three times that of a pipe (208 KiB against
// 64 KiB), so that ssh has something to encrypt until we are scheduled again.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	// Ours is waited for by Go's poller; theirs blocks, as a program expects
	// of its standard input.
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "ssh"), os.NewFile(uintptr(fds[1]), "ssh"), nil
}

// widenPipe gives a pipe the buffer that every user may ask for, 1 MiB (pipe(7));
// where it is refused, it stays as it is.
func widenPipe(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
}
