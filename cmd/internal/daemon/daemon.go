// Package daemon runs the program a second time in the background and waits
// until that process is ready.
//
// The process in the foreground calls [Start]. The one in the background gets
// the same arguments, finds by [Inherited] that it is the one, and reports by
// [Reporter.Ready] or [Reporter.Fail]. Until then it shares the standard
// output and error of the foreground; after that it has neither, so that
// nobody who reads them waits for it to end.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
)

// environment variable that has the descriptor on which to report.
const environment = "FLATIMG_REPORT_FD"

// report is what goes through the pipe, as JSON.
type report struct {
	Ready bool `json:"ready"`
	// Error, Hint and Code are those of a [cli.Error].
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
	Code  int    `json:"code,omitempty"`
}

// Start runs the program with its own arguments in a new session and returns
// when that process is ready, or its error. When ctx is done first the process
// is told to terminate.
func Start(ctx context.Context) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	// Not os.Executable, whose file may have been replaced meanwhile.
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), environment+"=3") // the first of ExtraFiles
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Signal(unix.SIGTERM) })
	defer stop()

	text, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("wait for the server: %w", err)
	}
	var got report
	if err := json.Unmarshal(text, &got); err != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		cmd.Wait()
		return fmt.Errorf("the server ended before it was ready: %v", cmd.ProcessState)
	}
	if got.Ready {
		return errors.Join(ctx.Err(), cmd.Process.Release())
	}
	cmd.Wait()
	return &cli.Error{Err: errors.New(got.Error), Hint: got.Hint, Code: got.Code}
}

// Reporter reports to the process in the foreground.
type Reporter struct{ pipe *os.File }

// Inherited returns the reporter of a process that [Start] has started, else
// nil. Call it once.
func Inherited() *Reporter {
	fd, err := strconv.Atoi(os.Getenv(environment))
	if err != nil {
		return nil
	}
	os.Unsetenv(environment)
	unix.CloseOnExec(fd)
	return &Reporter{os.NewFile(uintptr(fd), "report")}
}

// Ready lets the process in the foreground end, and leaves its terminal and
// working folder. Standard error then goes to log, or nowhere if it is nil.
func (r *Reporter) Ready(log *os.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if log == nil {
		log = null
	}
	for fd, file := range []*os.File{null, null, log} {
		if err := unix.Dup3(int(file.Fd()), fd, 0); err != nil {
			return fmt.Errorf("redirect descriptor %d: %w", fd, err)
		}
	}
	// Else the folder's file system could not be unmounted.
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return r.send(report{Ready: true})
}

// Fail passes on the error with which the process ends.
func (r *Reporter) Fail(err error) error {
	return r.send(report{Error: err.Error(), Hint: cli.Hint(err), Code: cli.ExitCode(err)})
}

func (r *Reporter) send(what report) error {
	defer r.pipe.Close()
	return json.NewEncoder(r.pipe).Encode(what)
}
