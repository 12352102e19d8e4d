package mounting

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
	"flatimg/fs/mountpoint"
)

// answerWithin is how long a mount may take to answer before it counts as
// hanging.
const answerWithin = 3 * time.Second

// errNoAnswer says that a mount's server does not answer.
var errNoAnswer = errors.New("its server does not answer")

// serverOf asks a mount of ours for its server's process ID.
// [unix.ENOTCONN] means that there is no server any more.
func serverOf(mount *mountpoint.Mount) (int, error) {
	type answer struct {
		text []byte
		err  error
	}
	// Buffered, for a read that ends when nobody waits for it.
	c := make(chan answer, 1)
	go func() {
		text, err := os.ReadFile(filepath.Join(mount.Point, ".flatimg", "pid"))
		c <- answer{text, err}
	}()
	select {
	case a := <-c:
		if a.err != nil {
			return 0, a.err
		}
		return strconv.Atoi(strings.TrimSpace(string(a.text)))
	case <-time.After(answerWithin):
		return 0, errNoAnswer
	}
}

// isStale says whether err of [serverOf] means that the server has ended.
func isStale(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

// checkMounted refuses a mount point where a mount of ours is.
func checkMounted(path string) error {
	mount, err := mountpoint.Find(path)
	if err != nil || mount == nil || !mount.IsOurs() {
		return err
	}
	e := &cli.Error{Hint: "unmount it first: flatimg unmount " + mount.Point, Code: cli.ExitMount}
	switch pid, err := serverOf(mount); {
	case err == nil:
		e.Err = fmt.Errorf("%s is already a mount of flatimg (process %d)", mount.Point, pid)
	case isStale(err):
		e.Err = fmt.Errorf("%s is a stale mount of flatimg: its server has ended", mount.Point)
		e.Hint = "clear it: flatimg unmount " + mount.Point
	case errors.Is(err, errNoAnswer):
		e.Err = fmt.Errorf("%s is a mount of flatimg, and %w", mount.Point, err)
		e.Hint = "detach it: flatimg unmount --lazy " + mount.Point
	default:
		e.Err = fmt.Errorf("%s is already a mount of flatimg", mount.Point)
	}
	return e
}
