package rig

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// serverLimit is how long a server may take until it answers. The slowest
	// take 5 seconds on an idle machine.
	serverLimit = 3 * time.Minute
	// startAttempts is how often a server is started when another has taken
	// its port.
	startAttempts = 5
	// logTail is how many bytes of a log are shown.
	logTail = 8 << 10
)

// Server is a real server on this machine that ends with its test.
type Server struct {
	// Address is its host:port, or the path of its socket.
	Address string
	// Dir is the folder that holds its data.
	Dir string

	name string
	// home is its own folder, with its configuration and its logs (*.log).
	home string
	// command returns a new command that starts it at Address.
	command func() *exec.Cmd
	// ready says whether it answers; nil: it accepts connections.
	ready   func() bool
	process *Process
}

// newServer returns a server, not started yet, with folders of the test.
func newServer(t T, name string) *Server {
	t.Helper()
	home := t.TempDir()
	s := &Server{name: name, home: home, Dir: filepath.Join(home, "data")}
	makeDirs(t, s.Dir)
	return s
}

// serve starts the server and ends it with the test. configure prepares a
// start at free ports, as many as it is asked for, of which the first is that
// of Address; it is called again with others when somebody has taken one.
func (s *Server) serve(t T, ports int, configure func(ports []int) *exec.Cmd) {
	t.Helper()
	if err := s.launch(ports, configure); err != nil {
		t.Fatalf("%v", err)
	}
	s.endWith(t)
}

// endWith ends the server with the test.
func (s *Server) endWith(t T) {
	t.Cleanup(func() {
		s.process.kill()
		if t.Failed() {
			t.Logf("log of %s:\n%s", s.name, s.Log())
		}
	})
}

func (s *Server) launch(ports int, configure func(ports []int) *exec.Cmd) error {
	var err error
	for range startAttempts {
		var free []int
		if free, err = freePorts(ports); err != nil {
			return err
		}
		s.Address = loopback(free[0])
		command := configure(free)
		s.command = func() *exec.Cmd {
			cmd := Command(command.Path, command.Args[1:]...)
			cmd.Dir, cmd.Env = command.Dir, command.Env
			return cmd
		}
		if err = s.start(); err == nil || !strings.Contains(strings.ToLower(err.Error()), "address already in use") {
			return err
		}
	}
	return err
}

// start starts the server at its address and waits until it answers.
func (s *Server) start() error {
	process, err := start(s.command())
	if err != nil {
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.process = process
	ready := s.ready
	if ready == nil {
		ready = func() bool { return accepts(s.Address) }
	}
	for end := time.Now().Add(serverLimit); ; time.Sleep(10 * time.Millisecond) {
		answers := ready()
		switch {
		case !process.Running():
			return fmt.Errorf("%s ended: %s", s.name, s.Log())
		case answers:
			return nil
		case time.Now().After(end):
			process.kill()
			return fmt.Errorf("%s does not answer at %s within %v: %s", s.name, s.Address, serverLimit, s.Log())
		}
	}
}

// Stop kills the server, as a power cut would.
func (s *Server) Stop() { s.process.kill() }

// Restart starts the server again at the same address, with the data it has.
func (s *Server) Restart(t T) {
	t.Helper()
	s.process.kill()
	if err := s.start(); err != nil {
		t.Fatalf("%v", err)
	}
}

// Pid returns the server's process id.
func (s *Server) Pid() int { return s.process.Cmd.Process.Pid }

// Log returns the end of what the server has written to its output and logs.
func (s *Server) Log() string {
	text := tail(s.process.Output())
	logs, _ := filepath.Glob(filepath.Join(s.home, "*.log"))
	for _, path := range logs {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			text += fmt.Sprintf("\n%s:\n%s", filepath.Base(path), tail(string(b)))
		}
	}
	return text
}

func tail(text string) string { return text[max(0, len(text)-logTail):] }

// network of an address: a path is that of a socket.
func network(address string) string {
	if strings.HasPrefix(address, "/") {
		return "unix"
	}
	return "tcp"
}

func accepts(address string) bool {
	conn, err := net.DialTimeout(network(address), address, time.Second)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// loopback returns the address of a port.
func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// configure writes a file of integration/testdata to the server's folder, with
// @R@ replaced by that folder, and more pairs of what is replaced by what. It
// returns the path of the file.
func (s *Server) configure(t T, name string, pairs ...string) string {
	t.Helper()
	template := readFile(t, filepath.Join(Root(t), "integration", "testdata", name))
	path := filepath.Join(s.home, name)
	writeFile(t, path, strings.NewReplacer(append(pairs, "@R@", s.home)...).Replace(template))
	return path
}

func makeDirs(t T, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatalf("%v", err)
		}
	}
}
