package sftp

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"flatimg/cmd/internal/servers/transfer"
)

// The fake ssh is the test's own binary. It serves this machine's files, and
// breaks as the file that fakeSSHFaults names says: each connection takes the
// first line of it.
const fakeSSHFaults = "FLATIMG_TEST_SSH_FAULTS"

// fakeSSH returns a command line that starts a fake ssh with those faults:
//
//	refuse      ends before it greets
//	in N        ends when it has read N bytes of requests
//	out N       ends when it has written N bytes of answers
//	lose T      ends in place of the answer to the first request of type T
//	            (SFTP draft 02, section 3), which it fulfils
//	deny T      refuses all requests of type T, and with SSH_FXP_REMOVE (13) also
//	            SSH_FXP_RMDIR, which the client tries then
//	plain T     the same, and has no extensions
//	hang N      answers no more when it has read N bytes of requests, and
//	            creates a file with the suffix .hung
func fakeSSH(t *testing.T, faults ...string) string {
	t.Helper()
	return fakeSSHIn(t, t.TempDir(), faults...)
}

// fakeSSHIn is fakeSSH with the file "faults" in dir.
func fakeSSHIn(t *testing.T, dir string, faults ...string) string {
	t.Helper()
	path := filepath.Join(dir, "faults")
	if err := os.WriteFile(path, []byte(strings.Join(faults, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("env GORACE=atexit_sleep_ms=0 %s=%s %s -test.run='^TestFakeSSH$' --", fakeSSHFaults, transfer.ShellQuote(path), transfer.ShellQuote(os.Args[0]))
}

// TestFakeSSH is no test, but the fake ssh.
func TestFakeSSH(t *testing.T) {
	path := os.Getenv(fakeSSHFaults)
	if path == "" {
		t.Skip("runs for other tests")
	}
	kind, arg := nextFault(path)
	if kind == "refuse" {
		fmt.Fprintln(os.Stderr, "ssh: connect to host: Connection refused")
		os.Exit(255)
	}
	if kind == "plain" {
		sftp.SetSFTPExtensions()
		kind = "deny"
	}
	in, requests := io.Pipe()
	c := &fakeConn{Reader: in, kind: kind, arg: arg}
	go c.forward(requests)
	server, err := sftp.NewServer(c)
	if err == nil {
		server.Serve()
	}
	os.Exit(0)
}

func nextFault(path string) (kind string, arg int64) {
	b, _ := os.ReadFile(path)
	line, rest, _ := strings.Cut(string(b), "\n")
	os.WriteFile(path, []byte(rest), 0o600)
	kind, text, _ := strings.Cut(line, " ")
	arg, _ = strconv.ParseInt(text, 10, 64)
	return kind, arg
}

// fakeConn is the server's end of a connection that breaks.
type fakeConn struct {
	io.Reader // requests
	kind      string
	arg       int64
	read      int64
	written   int64
}

// forward passes the requests on, one by one.
func (c *fakeConn) forward(w io.WriteCloser) {
	defer w.Close()
	header := make([]byte, 5)
	for {
		if _, err := io.ReadFull(os.Stdin, header); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(header)-1)
		if _, err := io.ReadFull(os.Stdin, body); err != nil {
			return
		}
		c.read += int64(len(header) + len(body))
		switch {
		case c.kind == "in" && c.read > c.arg:
			os.Exit(255)
		case c.kind == "hang" && c.read > c.arg:
			os.WriteFile(os.Getenv(fakeSSHFaults)+".hung", nil, 0o600)
			select {}
		case c.kind == "deny" && (int64(header[4]) == c.arg || c.arg == 13 && header[4] == 15):
			// SSH_FXP_STATUS, SSH_FX_PERMISSION_DENIED; two empty texts
			os.Stdout.Write(append(append([]byte{0, 0, 0, 17, 101}, body[:4]...), 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0))
			continue
		case c.kind == "lose" && int64(header[4]) == c.arg:
			c.kind = "lost"
		}
		w.Write(header)
		w.Write(body)
	}
}

func (c *fakeConn) Write(p []byte) (int, error) {
	c.written += int64(len(p))
	if c.kind == "lost" || c.kind == "out" && c.written > c.arg {
		os.Exit(255)
	}
	return os.Stdout.Write(p)
}

func (c *fakeConn) Close() error { return nil }
