package area

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
)

// Directory returns the area: named if that is not empty, else the
// environment's FLATIMG_AREA, else the folder for temporary files.
func Directory(named string) string {
	return cmp.Or(named, os.Getenv("FLATIMG_AREA"), os.TempDir())
}

// checkDirectory fails when dir can't be an area.
func checkDirectory(dir string) error {
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

// sameFileSystem says whether files can be renamed from one folder to another.
func sameFileSystem(a, b string) bool {
	var stA, stB unix.Stat_t
	return unix.Stat(a, &stA) == nil && unix.Stat(b, &stB) == nil && stA.Dev == stB.Dev
}
