package mounting

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
)

// unmounter is a process that unmounts one mount point when it is asked to. A
// server in a sandbox needs it to end by a signal: it may neither unmount nor
// run a program that may (Landlock denies umount(2), no_new_privs the setuid
// bit of fusermount3). The process ends with the server.
type unmounter struct {
	asks    io.Writer
	answers *bufio.Reader
}

// unmountScript gets a program, its option to unmount, its option to detach,
// and the mount point. It reads what to do and writes exit codes, a line each.
const unmountScript = `while read -r how; do
	if [ "$how" = detach ]; then "$1" "$3" -- "$4"; else "$1" "$2" -- "$4"; fi </dev/null >/dev/null 2>&1
	echo $?
done`

// startUnmounter starts the process for the mount point at path.
func startUnmounter(path string) (*unmounter, error) {
	point, err := filepath.Abs(path)
	if err == nil {
		point, err = filepath.EvalSymlinks(point)
	}
	if err != nil {
		return nil, err
	}
	// Without asking the file system, and without its helper.
	how := []string{"umount", "-ci", "-cil"}
	if os.Geteuid() != 0 {
		how = []string{"fusermount3", "-u", "-uz"}
	}
	for _, tool := range []string{"sh", how[0]} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, &cli.Error{Err: fmt.Errorf("--sandbox needs %s: %w", tool, err), Code: cli.ExitMount}
		}
	}
	cmd := exec.Command("sh", append(append([]string{"-c", unmountScript, "flatimg-unmount"}, how...), point)...)
	// Not ended by Ctrl-C, which is when it is needed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Dir = "/"
	asks, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	answers, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &unmounter{asks, bufio.NewReader(answers)}, nil
}

// unmount has the mount point unmounted, or only detached. It takes every
// failure of the former for a mount that is busy.
func (u *unmounter) unmount(ctx context.Context, path string, lazy bool) error {
	ask := "unmount\n"
	if lazy {
		ask = "detach\n"
	}
	answer := make(chan error, 1)
	go func() {
		_, err := io.WriteString(u.asks, ask)
		var code string
		if err == nil {
			code, err = u.answers.ReadString('\n')
		}
		switch code = strings.TrimSpace(code); {
		case err != nil:
			err = fmt.Errorf("ask for unmounting %s: %w", path, err)
		case code != "0" && !lazy:
			err = unix.EBUSY
		case code != "0":
			err = fmt.Errorf("detaching %s failed with exit code %s", path, code)
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
