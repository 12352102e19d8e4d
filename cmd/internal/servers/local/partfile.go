package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/servers/transfer"
)

// newFile is the mode of a new file, less what the umask takes from it. Only the
// kernel can tell the umask without changing it for all that go on at a time,
// and some file systems know no modes.
const newFile = 0o666

// partFile is a file in the folder of its target that has not got the target's
// name yet.
type partFile struct {
	*os.File
	// hidden is the path that it has meanwhile; empty for a file without a
	// name, which ends with its process however that ends.
	hidden    string
	published bool
}

// createPart creates the file for target.
func createPart(target string) (*partFile, error) {
	f, err := createNameless(filepath.Dir(target))
	if err == nil {
		return &partFile{File: f}, nil
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	hidden := partName(target)
	f, err = os.OpenFile(hidden, os.O_RDWR|os.O_CREATE|os.O_EXCL, newFile)
	if err != nil {
		return nil, err
	}
	return &partFile{File: f, hidden: hidden}, nil
}

// partName returns a hidden path beside path that nobody else uses.
func partName(path string) string {
	dir, name := filepath.Split(path)
	return dir + transfer.HiddenName(name)
}

// publish gives the file the name target, and makes that durable. An existing
// target is [fs.ErrExist] unless force is set.
func (p *partFile) publish(target string, force bool) error {
	if err := p.rename(target, force); err != nil {
		return err
	}
	p.published = true
	return syncFolder(filepath.Dir(target))
}

func (p *partFile) rename(target string, force bool) error {
	if p.hidden == "" {
		if !force {
			return linkNameless(p.File, target)
		}
		// A link can't replace a file; a rename can.
		hidden := partName(target)
		if err := linkNameless(p.File, hidden); err != nil {
			return err
		}
		p.hidden = hidden
	}
	if force {
		return os.Rename(p.hidden, target)
	}
	return renameNew(p.hidden, target)
}

// close closes the file, and removes it unless it was published.
func (p *partFile) close() error {
	err := p.File.Close()
	if p.hidden != "" && !p.published {
		if e := os.Remove(p.hidden); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = fmt.Errorf("partial file is left over: %w", e)
		}
	}
	return err
}

// syncFolder makes the names in dir durable. In a folder that can't be read,
// the file system does so by itself some seconds later.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	// Some network file systems can't sync a folder, and need not.
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}
