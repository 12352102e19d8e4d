package rig

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports for servers. Those above are for clients: the kernel could give one of
// them to a connection before the server takes it
// (/proc/sys/net/ipv4/ip_local_port_range).
const firstPort, lastPort = 10000, 32767

// freePorts returns n ports of the loopback address that nobody listens at, and
// that no other test gets: not before its server listens, and not while that is
// stopped.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if !holdPort(port) {
			continue
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("no %d ports are free", n)
}
