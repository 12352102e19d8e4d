package rsync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// maxSilence is how long a server may be silent while it transfers.
	maxSilence = 60 * time.Second
	// grace is how long rsync may take to end when it is asked to.
	grace = 2 * time.Second
)

// run runs rsync with options and args and returns its output. The server will
// read so many bytes without a word. An error says whether trying again may
// help.
func (s *server) run(ctx context.Context, reads int64, args ...string) (string, error) {
	var out limitedBuffer
	err := s.start(ctx, reads, &out, args...)
	return out.String(), err
}

// start is run with its output going to out.
func (s *server) start(ctx context.Context, reads int64, out io.Writer, args ...string) error {
	silence := maxSilence + time.Duration(reads/transfer.SlowestReads)*time.Second
	line := []string{"--no-human-readable", "--timeout=" + strconv.Itoa(int(silence/time.Second))}
	if s.overSSH() {
		line = append(line, "--rsh="+shell(s.target.Line()))
	} else {
		line = append(line, "--no-motd", "--contimeout="+strconv.Itoa(int(maxSilence/time.Second)))
	}
	cmd := exec.CommandContext(ctx, "rsync", append(line, args...)...)
	cmd.Env = s.environment()
	// Not a kill: rsync ends its ssh, and keeps what has arrived.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	said := &ssh.Tail{}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return &cli.Error{Err: err, Hint: "install rsync, or use sftp://", Code: cli.ExitServer}
	}
	return s.failure(err, said.String())
}

// environment is that of this process with the password. Its messages are in
// English, as [server.failure] knows them.
func (s *server) environment() []string {
	// The variable would move partial files.
	env := append(os.Environ(), "LC_ALL=C", "RSYNC_PARTIAL_DIR=")
	if s.password != "" {
		env = append(env, "RSYNC_PASSWORD="+s.password)
	}
	return env
}

// shell quotes the command line that starts ssh as rsync splits it (rsync(1),
// --rsh): a quote in quotes is doubled.
func shell(line []string) string {
	var b strings.Builder
	b.WriteString("/bin/sh")
	for _, word := range line {
		b.WriteString(" '" + strings.ReplaceAll(word, "'", "''") + "'")
	}
	return b.String()
}

// failure explains an end of rsync by its exit code (rsync(1), EXIT VALUES) and
// its words.
func (s *server) failure(err error, said string) error {
	code := -1 // a signal
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	}
	if said != "" {
		err = fmt.Errorf("%s", said)
	}
	has := func(text string) bool { return strings.Contains(said, text) }
	switch {
	case has("(28)"), has("(122)"):
		return &cli.Error{Err: fmt.Errorf("%w: %w", syscall.ENOSPC, err), Hint: "free space on the server", Code: cli.ExitNoSpace}
	case has("auth failed"), has("auth required"):
		return &cli.Error{Err: err, Hint: "--user or the URL names the user; FLATIMG_PASSWORD, RSYNC_PASSWORD or --password-file has the password", Code: cli.ExitServer}
	case has("Unknown module"):
		return &cli.Error{Err: err, Hint: "see what modules there are: rsync " + s.arg(""), Code: cli.ExitServer}
	case has("sparse cannot be used with --inplace"):
		return &cli.Error{Err: err, Hint: "the server's rsync is older than 3.1.3; use sftp://", Code: cli.ExitServer}
	case has("max connections"):
		return transfer.Passing(err)
	case has("command not found"), ssh.Refused(said):
		return transfer.Lasting(err)
	}
	switch code {
	case 11: // a file; the words of a daemon about it may be lost
		return &cli.Error{Err: err, Hint: "the server's disk may be full or read-only: see its log", Code: cli.ExitServer}
	// A socket, the stream, a signal, a timeout, connecting, ssh.
	case 10, 12, 20, -1, 30, 35, 255:
		return transfer.Passing(err)
	}
	return transfer.Lasting(err)
}

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	const most = 64 << 10
	b.Buffer.Write(p[:min(len(p), max(0, most-b.Len()))])
	return len(p), nil
}
