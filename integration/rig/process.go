package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// runLimit is the time after which a command is taken to hang.
	runLimit = 3 * time.Minute
	// pipeLimit is how long a command's output may stay open after its end.
	// A mount that keeps its caller's output open makes $(flatimg mount …)
	// in a script wait for ever.
	pipeLimit = 30 * time.Second
	// pipeGrace is how long the output is waited for of what runs beside a
	// test: what it has started may have it and outlive it.
	pipeGrace = 5 * time.Second
)

// Result of a run of the program.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Flatimg runs the program and returns how it went, whatever its exit code.
// It fails the test when the program hangs or dies of a signal.
func Flatimg(t T, args ...string) Result {
	t.Helper()
	return run(t, Command(Binary(t), args...))
}

// MustFlatimg runs the program, which must succeed, and returns its standard
// output.
func MustFlatimg(t T, args ...string) string {
	t.Helper()
	r := Flatimg(t, args...)
	if r.Code != 0 {
		t.Fatalf("flatimg %s: exit code %d\n%s%s", strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Run runs a tool, which must succeed, and returns its standard output.
func Run(t T, name string, args ...string) string {
	t.Helper()
	return RunIn(t, "", name, args...)
}

// RunIn is [Run] in the folder dir.
func RunIn(t T, dir, name string, args ...string) string {
	t.Helper()
	cmd := Command(Need(t, name), args...)
	cmd.Dir = dir
	r := run(t, cmd)
	if r.Code != 0 {
		t.Fatalf("%s %s: exit code %d\n%s%s", name, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Command returns a command that runs in a process group of its own.
func Command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// RunCommand runs a command and returns how it went, whatever its exit code.
// It fails the test when the command hangs or dies of a signal.
func RunCommand(t T, cmd *exec.Cmd) Result {
	t.Helper()
	return run(t, cmd)
}

func run(t T, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = pipeLimit
	if err := startCommand(cmd); err != nil {
		t.Fatalf("%v", err)
	}
	timer := time.AfterFunc(runLimit, func() { killGroup(cmd) })
	err := cmd.Wait()
	hung := !timer.Stop()
	state := func() string {
		return fmt.Sprintf("%s\n%s%s", strings.Join(cmd.Args, " "), stdout.String(), stderr.String())
	}
	var exit *exec.ExitError
	switch {
	case hung:
		t.Fatalf("killed after %v: %s", runLimit, state())
	case errors.Is(err, exec.ErrWaitDelay):
		t.Fatalf("ended, but a process it left holds its output open: %s", state())
	case errors.As(err, &exit) && exit.ExitCode() < 0:
		t.Fatalf("%v: %s", exit, state())
	case err != nil && exit == nil:
		t.Fatalf("%v: %s", err, state())
	}
	return Result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// killGroup kills a command and what it started.
func killGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

// Process is a command that runs beside the test.
type Process struct {
	Cmd  *exec.Cmd
	out  syncBuffer
	done chan struct{}
}

// Start starts cmd and collects its output. When the test ends it is killed if
// it still runs, and its output is shown if the test failed.
func Start(t T, cmd *exec.Cmd) *Process {
	t.Helper()
	p, err := start(cmd)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of %s:\n%s", strings.Join(cmd.Args, " "), p.Output())
		}
	})
	return p
}

// start is [Start] for what may outlive a test.
func start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{Cmd: cmd, done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.out
	}
	cmd.Stderr = &p.out
	cmd.WaitDelay = pipeGrace
	if err := startCommand(cmd); err != nil {
		return nil, err
	}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// kill kills the process and its group, if it runs, and waits for its end.
func (p *Process) kill() {
	if p.Running() {
		killGroup(p.Cmd)
		<-p.done
	}
}

// StartFlatimg starts the program; see [Start].
func StartFlatimg(t T, args ...string) *Process {
	t.Helper()
	return Start(t, Command(Binary(t), args...))
}

// Running says whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends sig to the process.
func (p *Process) Signal(sig syscall.Signal) { p.Cmd.Process.Signal(sig) }

// Output returns what it has written so far.
func (p *Process) Output() string { return p.out.String() }

// Wait waits for the end and returns the exit code, -1 after a signal. It fails
// the test when the process does not end within limit.
func (p *Process) Wait(t T, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		t.Fatalf("still running after %v: %s\n%s", limit, strings.Join(p.Cmd.Args, " "), p.Output())
	}
	return p.Cmd.ProcessState.ExitCode()
}

// Eventually calls ok until it returns true. It fails the test when that has
// not come within limit; what says what was waited for.
func Eventually(t T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if ok() {
				return // it came while this process did not run
			}
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// syncBuffer is a buffer that a process fills while a test reads it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
