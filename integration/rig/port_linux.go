package rig

import (
	"fmt"
	"syscall"
)

// holdPort makes a port this process's until it ends, and says whether it was
// nobody's among the processes that ask here: an abstract socket's name
// (unix(7)) can be bound once, and leaves nothing behind.
func holdPort(port int) bool {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("@flatimg-rig-port-%d", port)}); err != nil {
		syscall.Close(fd)
		return false
	}
	return true
}
