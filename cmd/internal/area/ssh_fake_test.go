package area

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/pkg/sftp"
)

// The fake ssh is the test's own binary, a server of this machine's files. The
// file that fakeSSHFault names says after how many bytes of requests all its
// connections together break; nothing: they don't.
const fakeSSHFault = "FLATIMG_TEST_SSH_FAULT"

// fakeServer is a folder behind a fake ssh.
type fakeServer struct {
	dir   string
	fault string // path of the file
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	return &fakeServer{dir: t.TempDir(), fault: filepath.Join(t.TempDir(), "fault")}
}

// command is the command line of ssh.
func (s *fakeServer) command() string {
	return fmt.Sprintf("env GORACE=atexit_sleep_ms=0 %s='%s' '%s' -test.run='^TestFakeSSH$' --", fakeSSHFault, s.fault, os.Args[0])
}

// url of a file in its folder.
func (s *fakeServer) url(name string) string { return "sftp://host" + s.dir + "/" + name }

// breakAfter lets it break after n bytes of requests; negative: not.
func (s *fakeServer) breakAfter(t *testing.T, n int64) {
	t.Helper()
	text := ""
	if n >= 0 {
		text = fmt.Sprint(n)
	}
	if err := os.WriteFile(s.fault, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// names are those in its folder.
func (s *fakeServer) names(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestFakeSSH is no test, but the fake ssh.
func TestFakeSSH(t *testing.T) {
	fault := os.Getenv(fakeSSHFault)
	if fault == "" {
		t.Skip("runs for other tests")
	}
	// … OPTIONS -- HOST COMMAND…
	i := len(os.Args) - 1 - slices.Index(reversed(os.Args), "--")
	command := os.Args[i+2:]
	if !slices.Equal(command, []string{"sftp"}) {
		cmd := exec.Command("/bin/sh", "-c", strings.Join(command, " "))
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		if cmd.Run() != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	server, err := sftp.NewServer(&fakeConn{fault: fault})
	if err == nil {
		server.Serve()
	}
	os.Exit(0)
}

func reversed(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}

// fakeConn is the server's end of a connection that breaks.
type fakeConn struct{ fault string }

func (c *fakeConn) Read(p []byte) (int, error) {
	n, err := os.Stdin.Read(p)
	text, readErr := os.ReadFile(c.fault)
	left, numErr := strconv.ParseInt(string(text), 10, 64)
	if errors.Join(readErr, numErr) == nil {
		if left -= int64(n); left < 0 {
			os.Exit(255)
		}
		os.WriteFile(c.fault, []byte(fmt.Sprint(left)), 0o600)
	}
	return n, err
}

func (c *fakeConn) Write(p []byte) (int, error) { return os.Stdout.Write(p) }
func (c *fakeConn) Close() error                { return nil }

var _ = (io.ReadWriteCloser)((*fakeConn)(nil))
