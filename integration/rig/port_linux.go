package rig

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// claim says whether a port was nobody's, and is ours from now on. What stands
// for it is a socket with an abstract name (unix(7)): one process can bind that,
// and it goes with the process, however that ends.
func claim(port int) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@flatimg-tests-port-%d", port)}); err != nil {
		unix.Close(fd)
		return false
	}
	return true
}
