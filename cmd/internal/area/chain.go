package area

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/schemes"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// chainFiles calls f for each file of an image until it returns an error.
func chainFiles(im *layers.Image, f func(*volume.File) error) error {
	for _, l := range im.Layers() {
		for _, file := range l.Files() {
			if err := f(file); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkNotSource fails when dest, or the file name in it, is a file of the
// image: the export would replace what it reads.
func checkNotSource(im *layers.Image, dest, name string) error {
	path, isLocal := schemes.LocalPath(dest)
	if !isLocal {
		return nil
	}
	fi, err := os.Stat(path)
	if err == nil && fi.IsDir() {
		fi, err = os.Stat(filepath.Join(path, name))
	}
	if err != nil {
		return nil // nothing there that could be one
	}
	return chainFiles(im, func(file *volume.File) error {
		var st syscall.Stat_t
		if err := syscall.Fstat(file.Fd(), &st); err != nil {
			return &os.PathError{Op: "stat", Path: file.Path(), Err: err}
		}
		if at, ok := fi.Sys().(*syscall.Stat_t); ok && at.Dev == st.Dev && at.Ino == st.Ino {
			return &cli.Error{
				Err:  fmt.Errorf("%s: %w: it is a volume of the image itself", dest, layers.ErrRefused),
				Hint: "choose another destination",
			}
		}
		return nil
	})
}

// checkUnchanged fails when a file of the image was written to since it was
// opened: what was read may be of two states.
func checkUnchanged(im *layers.Image) error {
	return chainFiles(im, checkFileUnchanged)
}

func checkFileUnchanged(file *volume.File) error {
	var st syscall.Stat_t
	if err := syscall.Fstat(file.Fd(), &st); err != nil {
		return &os.PathError{Op: "stat", Path: file.Path(), Err: err}
	}
	isRegular := st.Mode&syscall.S_IFMT == syscall.S_IFREG
	if isRegular && (st.Size != file.Size() || st.Mtim.Nano() != file.ModTime().UnixNano()) {
		return &cli.Error{
			Err:  fmt.Errorf("%s: changed while it was read", file.Path()),
			Hint: "stop who writes to it, then try again",
			Code: cli.ExitSource,
		}
	}
	return nil
}
