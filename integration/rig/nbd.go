package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// NBDServer serves one block device. Its Address is the path of its socket or
// its host:port.
type NBDServer struct {
	*Server
	// URI of the default export: nbd+unix:///?socket=PATH or nbd://HOST:PORT.
	URI string
}

// Nbdkit starts nbdkit on a socket; args are its options and filters, a plugin
// and its parameters. It ends with the test.
func Nbdkit(t T, args ...string) *NBDServer {
	t.Helper()
	return serveNBD(t, nbdkit(t, args), false)
}

// NbdkitTCP is [Nbdkit] on a port.
func NbdkitTCP(t T, args ...string) *NBDServer {
	t.Helper()
	return serveNBD(t, nbdkit(t, args), true)
}

// QemuNbd starts qemu-nbd on a socket; args are more options of it. The file is
// raw unless they say otherwise ("-f", "qcow2"). It ends with the test.
func QemuNbd(t T, file string, args ...string) *NBDServer {
	t.Helper()
	return serveNBD(t, qemuNbd(t, file, args), false)
}

// QemuNbdTCP is [QemuNbd] on a port.
func QemuNbdTCP(t T, file string, args ...string) *NBDServer {
	t.Helper()
	return serveNBD(t, qemuNbd(t, file, args), true)
}

// nbdProgram returns a command that listens at a socket, or at a port if
// that is "", and writes its process id to pidFile when it is ready.
type nbdProgram func(socket string, port int, pidFile string) *exec.Cmd

func nbdkit(t T, args []string) nbdProgram {
	t.Helper()
	path := Need(t, "nbdkit")
	return func(socket string, port int, pidFile string) *exec.Cmd {
		where := []string{"--unix", socket}
		if socket == "" {
			where = []string{"--ipaddr", "127.0.0.1", "--port", strconv.Itoa(port)}
		}
		return Command(path, append(append([]string{"--foreground", "--pidfile", pidFile}, where...), args...)...)
	}
}

func qemuNbd(t T, file string, args []string) nbdProgram {
	t.Helper()
	path := Need(t, "qemu-nbd")
	return func(socket string, port int, pidFile string) *exec.Cmd {
		where := []string{"--socket", socket}
		if socket == "" {
			where = []string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port)}
		}
		options := append([]string{"--persistent", "--shared", "16", "--format", "raw", "--pid-file", pidFile}, where...)
		return Command(path, append(append(options, args...), file)...)
	}
}

func serveNBD(t T, program nbdProgram, tcp bool) *NBDServer {
	t.Helper()
	// Not below the test's folder: a socket's path has 108 bytes at most.
	home, err := os.MkdirTemp("", "nbd-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	s := &Server{name: "NBD server", home: home}
	pidFile, socket := filepath.Join(home, "pid"), ""
	if !tcp {
		socket = filepath.Join(home, "s")
	}
	// A connection would count for filters and for qemu-nbd's --shared.
	s.ready = func() bool {
		b, err := os.ReadFile(pidFile)
		return err == nil && len(b) > 0
	}
	n := &NBDServer{Server: s}
	s.serve(t, 1, func(ports []int) *exec.Cmd {
		n.URI = "nbd://" + s.Address
		if !tcp {
			s.Address = socket
			n.URI = "nbd+unix:///?socket=" + socket
		}
		return program(socket, ports[0], pidFile)
	})
	return n
}

// Restart starts the server again at the same address.
func (n *NBDServer) Restart(t T) {
	t.Helper()
	n.Stop()
	// What a killed server leaves: the one would say that it is ready, the
	// other that its address is in use.
	os.Remove(filepath.Join(n.home, "pid"))
	os.Remove(filepath.Join(n.home, "s"))
	n.Server.Restart(t)
}
