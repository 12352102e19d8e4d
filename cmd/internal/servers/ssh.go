package servers

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// sshTarget is an account at a host, as ssh takes it.
type sshTarget struct {
	command    string // a shell's command line that starts ssh
	user, port string // empty: what ssh's configuration says
	host       string
	defaults   []string // options for what the user has not configured
}

// sshGrace is how long ssh may take to end when it is asked to.
const sshGrace = 2 * time.Second

// sshNoPrompt is ssh's option for a connection that must not ask anything.
const sshNoPrompt = "-oBatchMode=yes"

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

// line returns the arguments of /bin/sh that run ssh, up to the host and what
// follows it.
//
// ssh ignores the terminal's interrupt: Ctrl-C reaches all processes in front,
// and this one still needs the connection to remove what it sent. A prompt for
// a password can be interrupted all the same.
func (t sshTarget) line(options ...string) []string {
	line := []string{"-c", `trap "" INT; exec ` + t.command + ` "$@"`, "sh"}
	line = append(line, t.defaults...)
	line = append(line, options...)
	if t.port != "" {
		line = append(line, "-p", t.port)
	}
	if t.user != "" {
		line = append(line, "-l", t.user)
	}
	return line
}

// start returns a command that runs ssh with options before the host and with
// args after it. Its error output goes to the returned tail.
func (t sshTarget) start(ctx context.Context, options []string, args ...string) (*exec.Cmd, *tail) {
	line := append(t.line(options...), "--", t.host)
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

// subsystem starts ssh with options for a subsystem of the server; it is killed
// with ctx.
func (t sshTarget) subsystem(ctx context.Context, name string, options ...string) (*sshProcess, error) {
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

// hasEnded says whether ssh has ended, and the connection with it.
func (p *sshProcess) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
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
	cmd, errs := t.start(ctx, []string{sshNoPrompt}, command)
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	lost := sshLost(err)
	if text := errs.String(); text != "" {
		lost = lost && !sshRefused(text)
		err = errors.New(text)
	}
	if lost {
		err = passing{err}
	}
	return nil, err
}

// sshLost says whether ssh itself failed, and not the command that it ran
// (ssh(1), EXIT STATUS).
func sshLost(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.ExitCode() == 255
}

// sshRefused says whether ssh's words are about something that does not pass.
func sshRefused(words string) bool {
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

// shellQuote quotes text as one word of a POSIX shell.
func shellQuote(text string) string {
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
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
