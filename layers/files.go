package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"flatimg/layers/volume"
)

// openTop opens the file that the user named.
func (o *opener) openTop(path string) (*volume.File, error) {
	f, err := volume.Open(path)
	switch {
	case isMissing(err):
		return nil, withHint(err, "IMAGE is the path of the top of a chain, as ls prints it")
	case errors.Is(err, os.ErrPermission):
		return nil, withHint(err, "run flatimg as a user who may read the file")
	case err != nil:
		return nil, err
	}
	return o.take(path, f)
}

// openStored opens the file for which name stands in the image at image: the
// one that the user gave in its place, else the one at that path, else one of
// the same name in a directory to search. A relative name starts at the image's
// directory, also that of a data file, which QEMU looks for in its own working
// directory: there it would depend on who opens the image.
func (o *opener) openStored(image, name string) (*volume.File, error) {
	if path, ok := o.opts.Parents[name]; ok {
		return o.openTop(path)
	}
	path, err := resolveStored(image, name)
	if err != nil {
		return nil, err
	}
	if path, ok := o.opts.Parents[path]; ok {
		return o.openTop(path)
	}
	f, err := o.trusted.open(image, path)
	if err == nil {
		return o.take(path, f)
	}
	for _, dir := range o.opts.SearchDirs {
		found := filepath.Join(dir, filepath.Base(path))
		if file, err := o.openTop(found); err == nil || !isMissing(err) {
			return file, err
		}
	}
	if isMissing(err) {
		err = withHint(fmt.Errorf("%s: its backing or data file %s does not exist", image, path),
			"if the file was moved, say where it is with --parent %s=FILE or --search-dir DIR", path)
	}
	return nil, err
}

// take makes a file of the chain of f, which was opened at path, and marks it as
// being read.
func (o *opener) take(path string, f *os.File) (*volume.File, error) {
	file, err := volume.NewFile(path, o.opts.Wrap(f))
	if err != nil || !o.locks {
		return file, err
	}
	sharing := volume.Readers
	switch {
	case o.opts.ForceShare:
		sharing = volume.Writers
	case o.opts.Peek:
		sharing = volume.Look
	}
	hasWriter, err := file.Lock(sharing)
	if err != nil {
		file.Close()
		return nil, o.lockError(err)
	}
	if hasWriter {
		o.written[file] = true
	}
	return file, nil
}

func (o *opener) lockError(err error) error {
	switch {
	case !errors.Is(err, volume.ErrInUse):
		return err
	case o.opts.ForceShare:
		return withHint(fmt.Errorf("%w, which lets nobody read it", err), "wait until the other process is done with it")
	}
	return withHint(marked{fmt.Errorf("%w, which writes to it: a running virtual machine?", err), ErrRefused},
		"shut the machine down, or read a snapshot of it; --force-share reads the image as it changes")
}
