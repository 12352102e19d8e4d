package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// trusted are the directories in whose trees paths stored in images may lie.
type trusted struct {
	// roots are absolute and without symbolic links. The first is that of the
	// top image.
	roots []string
}

// newTrusted trusts the tree of the top image's directory and those of dirs.
func newTrusted(top string, dirs []string) (*trusted, error) {
	t := &trusted{}
	// The directory in which the name stands, not the one a symbolic link
	// leads to: relative names of backing files start there, too.
	for _, dir := range append([]string{filepath.Dir(top)}, dirs...) {
		root, err := realPath(dir)
		if err != nil {
			return nil, err
		}
		t.roots = append(t.roots, root)
	}
	return t, nil
}

func realPath(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// resolveStored returns the path that name, stored in the image at image, stands
// for: a relative one starts at the image's directory.
func resolveStored(image, name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%s: the stored path %q has a zero byte", image, name)
	}
	// A colon before the first slash names one of QEMU's protocols.
	if scheme, _, found := strings.Cut(name, ":"); found && !strings.Contains(scheme, "/") {
		return "", withHint(
			fmt.Errorf("%s: the stored path %q begins with a protocol (%s:), which is never followed", image, name, scheme),
			"qemu-img rebase -u -b FILE -F FORMAT records a plain path")
	}
	if filepath.IsAbs(name) {
		return filepath.Clean(name), nil
	}
	return filepath.Join(filepath.Dir(image), name), nil
}

// open opens the file at path, which the image at image names, if it lies in a
// trusted directory. Symbolic links are followed as long as they stay there.
func (t *trusted) open(image, path string) (*os.File, error) {
	real, err := realPath(path)
	if err != nil {
		return nil, err
	}
	for _, dir := range t.roots {
		rel, err := filepath.Rel(dir, real)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		return openBeneath(dir, rel)
	}
	return nil, &PathRefusedError{Image: image, Path: path, Dir: filepath.Dir(real)}
}

// openBeneath opens the file rel in the tree of dir; neither path has symbolic
// links. It fails when somebody makes one of a component in this moment, and
// does not wait for the writer of a FIFO.
func openBeneath(dir, rel string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_NOCTTY, 0)
}

// isMissing says whether an error means that there is no such file.
func isMissing(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// PathRefusedError says that an image names a file outside the directories that
// may be read.
type PathRefusedError struct {
	Image string // path of the image that names it
	Path  string // the file, as resolved from the stored name
	Dir   string // the directory that would have to be allowed
}

func (e *PathRefusedError) Error() string {
	return fmt.Sprintf("%s: refused to follow the stored path %s: it is outside the image's directory", e.Image, e.Path)
}

// Unwrap returns ErrRefused.
func (e *PathRefusedError) Unwrap() error { return ErrRefused }

// Hint names the flag that allows it.
func (e *PathRefusedError) Hint() string {
	return fmt.Sprintf("if you trust the image, allow it with --allow-dir %s", e.Dir)
}
