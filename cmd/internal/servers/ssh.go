package servers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"syscall"
	"time"
)

// sshTarget is an account at a host, as ssh takes it.
type sshTarget struct {
	command    string // a shell's command line that starts ssh
	user, port string // empty: what ssh's configuration says
	host       string
}

// sshGrace is how long ssh may take to end when it is asked to.
const sshGrace = 2 * time.Second

// String is a command line that people can try.
func (t sshTarget) String() string {
	line := t.command
	if t.port != "" {
		line += " -p " + t.port
	}
	if t.user != "" {
		return line + " " + t.user + "@" + t.host
	}
	return line + " " + t.host
}

// start returns a command that runs ssh with options before the host and with
// args after it. Its error output goes to the returned tail.
//
// ssh ignores the terminal's interrupt: Ctrl-C reaches all processes in front,
// and this one still needs the connection to remove what it sent. A prompt for
// a password can be interrupted all the same.
func (t sshTarget) start(ctx context.Context, options []string, args ...string) (*exec.Cmd, *tail) {
	line := []string{"-c", `trap "" INT; exec ` + t.command + ` "$@"`, "sh"}
	if program, _, _ := strings.Cut(t.command, " "); path.Base(program) == "ssh" {
		// A silent server is an error after a minute, not a hang.
		line = append(line, "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
	}
	line = append(line, options...)
	if t.port != "" {
		line = append(line, "-p", t.port)
	}
	if t.user != "" {
		line = append(line, "-l", t.user)
	}
	line = append(line, "--", t.host)
	cmd := exec.CommandContext(ctx, "/bin/sh", append(line, args...)...)
	// Not a kill: ssh restores a terminal on which it was reading a password.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = sshGrace
	errs := &tail{}
	cmd.Stderr = errs
	return cmd, errs
}

// sshProcess is a running ssh that carries a subsystem.
type sshProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   io.ReadCloser
	errs  *tail
	ended chan struct{} // closed when it has ended
}

// subsystem starts ssh with a subsystem of the server; it is killed with ctx.
func (t sshTarget) subsystem(ctx context.Context, name string) (*sshProcess, error) {
	cmd, errs := t.start(ctx, []string{"-s"}, name)
	in, stdin, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	cmd.Stdin = stdin
	// Not StdoutPipe, which Wait closes under its reader.
	out, w, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer w.Close()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	p := &sshProcess{cmd, in, out, errs, make(chan struct{})}
	go func() {
		cmd.Wait() // its exit code says less than its words
		close(p.ended)
	}()
	return p, nil
}

// close ends the connection and waits until ssh has ended.
func (p *sshProcess) close() {
	p.in.Close()
	timer := time.AfterFunc(sshGrace, func() { p.cmd.Cancel() })
	defer timer.Stop()
	<-p.ended
	p.out.Close()
}

// lastWords returns what ssh said when the connection broke; empty when it has
// said nothing within a moment.
func (p *sshProcess) lastWords() string {
	select {
	case <-p.ended:
	case <-time.After(sshGrace):
	}
	return p.errs.String()
}

// run runs a command in the account's shell and returns its output. It never
// prompts.
func (t sshTarget) run(ctx context.Context, command string) ([]byte, error) {
	cmd, errs := t.start(ctx, []string{"-o", "BatchMode=yes"}, command)
	out, err := cmd.Output()
	if err != nil {
		if text := errs.String(); text != "" {
			err = errors.New(text)
		}
		return nil, err
	}
	return out, nil
}

// shellQuote quotes text as one word of a POSIX shell.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// tailBytes is more than the messages of ssh about one connection take.
const tailBytes = 4096

// tail keeps the end of what is written to it. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	t.b = t.b[max(0, len(t.b)-tailBytes):]
	return len(p), nil
}

// String returns the last lines that were written, as one.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	const most = 3 // lines; a login banner would bury the reason
	lines := bytes.FieldsFunc(t.b, func(r rune) bool { return r == '\n' || r == '\r' })
	lines = lines[max(0, len(lines)-most):]
	return string(bytes.Join(lines, []byte("; ")))
}

// sshCommand returns the command line that starts ssh: that of the options,
// else that of the environment.
func sshCommand(o Options) string {
	if o.SSH != "" {
		return o.SSH
	}
	if env := os.Getenv("FLATIMG_SSH"); env != "" {
		return env
	}
	return "ssh"
}
