package area

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
)

// area is the directory of the area.
func (o Options) area() string {
	if o.Area != "" {
		return o.Area
	}
	if dir := os.Getenv("FLATIMG_AREA"); dir != "" {
		return dir
	}
	return os.TempDir()
}

// checkArea fails when an area is needed, and not there.
func (o Options) checkArea() error {
	if o.Area == "" && !o.Keep && !servers.IsURL(o.Dest) {
		return nil
	}
	dir := o.area()
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &cli.Error{
			Err:  fmt.Errorf("area %s: %w", dir, fs.ErrNotExist),
			Hint: "make it with: mkdir -p " + dir,
			Code: cli.ExitUsage,
		}
	case err != nil:
		return err
	case !fi.IsDir():
		return cli.Usagef("area %s: not a folder", dir)
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return &cli.Error{
			Err:  fmt.Errorf("area %s: %w", dir, err),
			Hint: "--area DIR names a folder that you may write to",
			Code: cli.ExitUsage,
		}
	}
	return nil
}

// job is a file in a folder of its own in an area.
type job struct {
	*os.File
	dir string
}

// newJob creates the file name in a new folder in the area dir. Only its user
// can read it.
func newJob(dir, name string) (*job, error) {
	own, err := os.MkdirTemp(dir, "flatimg-") // mode 0700
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(own, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		os.Remove(own)
		return nil, err
	}
	return &job{f, own}, nil
}

// remove removes the file and its folder.
func (j *job) remove() error {
	return errors.Join(j.Close(), os.RemoveAll(j.dir))
}

// sameFileSystem says whether files can be renamed from one folder to another.
func sameFileSystem(a, b string) bool {
	var stA, stB unix.Stat_t
	return unix.Stat(a, &stA) == nil && unix.Stat(b, &stB) == nil && stA.Dev == stB.Dev
}
