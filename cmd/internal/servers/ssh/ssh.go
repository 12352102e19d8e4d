// Package ssh starts the system's ssh, with the user's own configuration, agent and
// known hosts, for the protocols that run over it.
package ssh

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"flatimg/cmd/internal/servers/transfer"
)

// NoPrompt is ssh's option for a connection that must not ask anything.
const NoPrompt = "-oBatchMode=yes"

// grace is how long ssh may take to end when it is asked to.
const grace = 2 * time.Second

// Target is an account at a host, as ssh takes it.
type Target struct {
	command    string // a shell's command line that starts ssh
	User, Port string // empty: what ssh's configuration says
	Host       string
	defaults   []string // options for what the user has not configured
}

// String is a command line that people can try.
func (t Target) String() string {
	line := t.command
	if t.Port != "" {
		line += " -p " + t.Port
	}
	if t.User != "" {
		return line + " " + t.User + "@" + t.Host
	}
	return line + " " + t.Host
}

// Line returns the arguments of /bin/sh that run ssh, up to the host and what
// follows it.
//
// ssh ignores the terminal's interrupt: Ctrl-C reaches all processes in front,
// and this one still needs the connection to remove what it sent. A prompt for
// a password can be interrupted all the same.
func (t Target) Line(options ...string) []string {
	line := []string{"-c", `trap "" INT; exec ` + t.command + ` "$@"`, "sh"}
	line = append(line, t.defaults...)
	line = append(line, options...)
	if t.Port != "" {
		line = append(line, "-p", t.Port)
	}
	if t.User != "" {
		line = append(line, "-l", t.User)
	}
	return line
}

// start returns a command that runs ssh with options before the host and with
// args after it. Its error output goes to the returned tail.
func (t Target) start(ctx context.Context, options []string, args ...string) (*exec.Cmd, *Tail) {
	line := append(t.Line(options...), "--", t.Host)
	cmd := exec.CommandContext(ctx, "/bin/sh", append(line, args...)...)
	// Not a kill: ssh restores a terminal on which it was reading a password.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	errs := &Tail{}
	cmd.Stderr = errs
	return cmd, errs
}

// Process is a running ssh that carries a subsystem.
type Process struct {
	cmd   *exec.Cmd
	In    io.WriteCloser
	Out   io.ReadCloser
	Errs  *Tail
	ended chan struct{} // closed when it has ended
}

// Subsystem starts ssh with options for a subsystem of the server; it is killed
// with ctx.
func (t Target) Subsystem(ctx context.Context, name string, options ...string) (*Process, error) {
	cmd, errs := t.start(ctx, append(options, "-s"), name)
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
	widenPipe(w)
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	p := &Process{cmd, in, out, errs, make(chan struct{})}
	go func() {
		cmd.Wait() // its exit code says less than its words
		close(p.ended)
	}()
	return p, nil
}

// Close ends the connection and waits until ssh has ended.
func (p *Process) Close() {
	p.In.Close()
	timer := time.AfterFunc(grace, func() { p.cmd.Cancel() })
	defer timer.Stop()
	<-p.ended
	p.Out.Close()
}

// HasEnded says whether ssh has ended, and the connection with it.
func (p *Process) HasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// LastWords returns what ssh said when the connection broke; empty when it has
// said nothing within a moment.
func (p *Process) LastWords() string {
	select {
	case <-p.ended:
	case <-time.After(grace):
	}
	return p.Errs.String()
}

// run runs a command in the account's shell and returns its output. It never
// prompts.
func (t Target) run(ctx context.Context, command string) ([]byte, error) {
	cmd, errs := t.start(ctx, []string{NoPrompt}, command)
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	lost := isLost(err)
	if text := errs.String(); text != "" {
		lost = lost && !Refused(text)
		err = errors.New(text)
	}
	if lost {
		err = transfer.Passing(err)
	}
	return nil, err
}

// isLost says whether ssh itself failed, and not the command that it ran
// (ssh(1), EXIT STATUS).
func isLost(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() == 255
}

// Refused says whether ssh's words are about something that does not pass.
func Refused(words string) bool {
	for _, text := range []string{
		"Permission denied", "Host key verification failed", "REMOTE HOST IDENTIFICATION HAS CHANGED",
		"Too many authentication failures", "Bad configuration option", "subsystem request failed", ": not found",
	} {
		if strings.Contains(words, text) {
			return true
		}
	}
	return false
}
