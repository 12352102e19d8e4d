package rig

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"
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

	process *Process
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
	dir := t.TempDir()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatalf("%v", err)
	}
	s := &SSHServer{Host: "127.0.0.1", Port: ports[0], User: me.Username}
	for _, key := range []string{"host_key", "client_key"} {
		Run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, key))
	}
	public := readFile(t, filepath.Join(dir, "client_key.pub"))
	writeFile(t, filepath.Join(dir, "authorized_keys"), public)
	hostKey := readFile(t, filepath.Join(dir, "host_key.pub"))
	writeFile(t, filepath.Join(dir, "known_hosts"), fmt.Sprintf("[%s]:%d %s", s.Host, s.Port, hostKey))

	template := readFile(t, filepath.Join(Root(t), "integration", "testdata", "sshd_config"))
	config := strings.NewReplacer("@R@", dir, "@PORT@", strconv.Itoa(s.Port)).Replace(template)
	writeFile(t, filepath.Join(dir, "sshd_config"), config)

	client := filepath.Join(dir, "ssh_config")
	writeFile(t, client, fmt.Sprintf(`Host %s
  Port %d
  IdentityFile %s
  IdentitiesOnly yes
  UserKnownHostsFile %s
  StrictHostKeyChecking yes
  BatchMode yes
`, s.Host, s.Port, filepath.Join(dir, "client_key"), filepath.Join(dir, "known_hosts")))
	s.Command = "ssh -F " + client

	// In the foreground (-D) and logging to standard error (-e).
	s.process = Start(t, Command(sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config")))
	address := net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
	Eventually(t, 10*time.Second, "sshd listens at "+address, func() bool {
		if !s.process.Running() {
			t.Fatalf("sshd ended: %s", s.process.Output())
		}
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return s
}

// Stop stops the server and its connections.
func (s *SSHServer) Stop(t T) {
	t.Helper()
	killGroup(s.process.Cmd)
	s.process.Wait(t, 10*time.Second)
}

// Log returns what the server has logged.
func (s *SSHServer) Log() string { return s.process.Output() }

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
