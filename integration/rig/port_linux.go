package rig

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// reserve says whether no other test has a port, in this process or in another
// one, and keeps it until this process ends: a server takes its port some time
// after it was found free, and leaves it for a moment when it is restarted.
//
// The mark is an abstract socket (unix(7)), which the kernel removes with its
// process. Nobody connects to it.
func reserve(port int) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@flatimg-rig-port-%d", port)}) != nil {
		unix.Close(fd)
		return false
	}
	return true
}
