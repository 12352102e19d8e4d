package rig

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// SSHServer is an sshd on the loopback address that lets the test's user in.
type SSHServer struct {
	// Command is an ssh command line that knows the server's and the client's
	// keys: "ssh -F CONFIG".
	Command string
	// Host, Port and User to connect to.
	Host string
	Port int
	User string

	*Server
}

// Sshd starts an sshd with sftp; it ends with the test.
func Sshd(t T) *SSHServer {
	t.Helper()
	NeedRoot(t) // sshd of another user could log in no one but that user
	sshd := Need(t, "sshd")
	// sshd's privilege separation wants this folder, which a boot makes.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatalf("%v", err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatalf("%v", err)
	}
	server := newServer(t, "sshd")
	dir := server.home
	s := &SSHServer{Server: server, Host: "127.0.0.1", User: me.Username}
	for _, key := range []string{"host_key", "client_key"} {
		Run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key))
	}
	public := readFile(t, filepath.Join(dir, "client_key.pub"))
	writeFile(t, filepath.Join(dir, "authorized_keys"), public)
	hostKey := readFile(t, filepath.Join(dir, "host_key.pub"))
	client := filepath.Join(dir, "ssh_config")
	s.Command = "ssh -F " + client
	server.serve(t, 1, func(ports []int) *exec.Cmd {
		s.Port = ports[0]
		writeFile(t, filepath.Join(dir, "known_hosts"), fmt.Sprintf("[%s]:%d %s", s.Host, s.Port, hostKey))
		writeFile(t, client, fmt.Sprintf(`Host %s
  Port %d
  IdentityFile %s
  IdentitiesOnly yes
  UserKnownHostsFile %s
  StrictHostKeyChecking yes
  BatchMode yes
`, s.Host, s.Port, filepath.Join(dir, "client_key"), filepath.Join(dir, "known_hosts")))
		config := server.configure(t, "sshd_config", "@PORT@", strconv.Itoa(s.Port))
		// In the foreground (-D) and logging to standard error (-e).
		return Command(sshd, "-D", "-e", "-f", config)
	})
	return s
}

// Stop kills the server and its connections, each of which is served by
// processes in a session of their own.
func (s *SSHServer) Stop(t T) {
	t.Helper()
	connections := descendants(s.Pid())
	kill(s.Pid())
	for _, pid := range connections {
		kill(pid)
	}
	// After them, since it waits until nobody holds the server's output open.
	s.Server.Stop()
}

// descendants returns the processes that a process has started, and those that
// they have (proc_pid_stat(5)).
func descendants(pid int) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	children := map[int][]int{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		stat := string(b)
		// The name, in parentheses, may hold anything.
		fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		child, err1 := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		parent, err2 := strconv.Atoi(fields[1])
		if err1 == nil && err2 == nil {
			children[parent] = append(children[parent], child)
		}
	}
	all := children[pid]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

func readFile(t T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return string(b)
}

func writeFile(t T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatalf("%v", err)
	}
}
