package mounting

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"

	"flatimg/cmd/internal/cli"
)

// Rights of landlock(7).
const (
	mayReadFile = landlock.AccessFSSet(ll.AccessFSReadFile)
	mayReadTree = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	mayUseNull  = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSWriteFile)
)

// enterSandbox takes from this process for ever the right to gain privileges, to
// open files except to read them in the folders of o, to change what is mounted,
// and to use TCP. What is open stays so, the log among it.
func enterSandbox(o Options) error {
	// Before it can't be read any more: times are told in the local zone.
	_, _ = time.Now().Zone()
	version, err := ll.LandlockGetABIVersion()
	if err != nil || version < 1 {
		return &cli.Error{
			Err:  errors.New("--sandbox needs a kernel with Landlock (Linux 5.13 and later, not disabled at boot)"),
			Hint: "mount without --sandbox, or as a user who may read nothing but the images",
			Code: cli.ExitMount,
		}
	}
	trees, devices := readable(o)
	// As much of it as this kernel knows. Later versions forbid to connect to
	// sockets by path, which syslog needs.
	err = landlock.V7.BestEffort().Restrict(
		landlock.PathAccess(mayReadTree, trees...),
		landlock.PathAccess(mayReadFile, devices...),
		landlock.PathAccess(mayUseNull, os.DevNull),
	)
	if err != nil {
		return &cli.Error{Err: fmt.Errorf("sandbox: %w", err), Code: cli.ExitMount}
	}
	return nil
}

// readable returns the folders and the block devices that images are read from.
func readable(o Options) (trees, devices []string) {
	beside := func(path string) {
		fi, err := os.Stat(path)
		switch {
		case err != nil: // not there yet
		case fi.Mode()&os.ModeDevice != 0:
			devices = append(devices, path)
			return
		case fi.IsDir():
			trees = append(trees, path)
			return
		}
		// Its folder, so that another file may come in its place; and that of
		// the file to which a link leads.
		trees = append(trees, filepath.Dir(path))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			trees = append(trees, filepath.Dir(real))
		}
	}
	for _, s := range o.Sources {
		beside(s)
	}
	for _, p := range o.Layers.Parents {
		beside(p)
	}
	trees = append(trees, o.Layers.AllowDirs...)
	trees = append(trees, o.Layers.SearchDirs...)
	return trees, devices
}
