package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"os"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/ext4"

	"flatimg/convert"
	"flatimg/layers"
)

// view is a flattened disk as one file of a format, mounted or not.
type view interface {
	io.ReaderAt
	io.Closer
	// Size in bytes.
	Size() int64
}

// view opens the disk of a layer in a format. Only the top layer's is mounted.
func (d *demo) view(layer, format string) (view, error) {
	if d.mounted && layer == diskName {
		return openFile(d.path("mnt", layer+"."+format))
	}
	return openTarget(d.path(layer+".qcow2"), format)
}

// fileView is a file in the mount.
type fileView struct {
	*os.File
	size int64
}

func openFile(path string) (view, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return fileView{f, fi.Size()}, nil
}

func (v fileView) Size() int64 { return v.size }

// targetView is the same file without a mount.
type targetView struct {
	convert.Target
	image *layers.Image
}

func openTarget(path, format string) (view, error) {
	image, err := layers.Open(path, layers.Options{})
	if err != nil {
		return nil, err
	}
	target, err := convert.New(image, convert.Spec{Format: format})
	if err != nil {
		image.Close()
		return nil, err
	}
	return targetView{target, image}, nil
}

func (v targetView) ReadAt(p []byte, off int64) (int, error) { return convert.ReadAt(v.Target, p, off) }
func (v targetView) Close() error                            { return v.image.Close() }

// readExt4 returns the content of a file on a disk that is one ext4.
func readExt4(disk view, name string) ([]byte, error) {
	section := diskFile{io.NewSectionReader(disk, 0, disk.Size())}
	fsys, err := ext4.Read(file.New(section, true), disk.Size(), 0, 512)
	if err != nil {
		return nil, err
	}
	f, err := fsys.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// diskFile is what the ext4 reader takes: a file, of which it only reads.
type diskFile struct{ *io.SectionReader }

var _ = (fs.File)(diskFile{})

func (diskFile) Stat() (fs.FileInfo, error) { return nil, fs.ErrInvalid }
func (diskFile) Close() error               { return nil }

// digest returns the SHA-256 of size bytes in hex.
func digest(r io.ReaderAt, size int64) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
