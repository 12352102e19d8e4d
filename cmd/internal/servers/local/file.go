// Package local writes files and block devices of this machine.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// Copying to a local file: few workers keep a disk busy, large chunks keep the
// system calls few.
const (
	fileWorkers = 4
	fileChunk   = 1 << 20
)

// fileUpload is an upload to a file of this machine.
type fileUpload struct {
	path  string // of the target
	force bool
	part  *partFile // nil until Create
}

var _ = (servers.Local)((*fileUpload)(nil))
var _ = (servers.ReadBacker)((*fileUpload)(nil))

// OpenURL is Open for a file:// URL.
func OpenURL(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	path, err := FilePath(dest)
	if err != nil {
		return nil, err
	}
	return Open(ctx, path, o)
}

// Open opens a path as a destination: a file, a folder or a block device.
func Open(_ context.Context, dest string, o servers.Options) (servers.Upload, error) {
	path, err := targetPath(dest, o.Name)
	if err != nil {
		return nil, err
	}
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// A symbolic link to nothing is there, too; --force replaces it.
		if _, err := os.Lstat(path); err == nil && !o.Force {
			return nil, transfer.Exists(path)
		}
	case err != nil:
		return nil, err
	case fi.IsDir():
		return nil, transfer.Usage(fmt.Errorf("%s: is a folder", path), "remove it, or give the file another name")
	case fi.Mode().Type() == fs.ModeDevice:
		return openDevice(path, o)
	case !fi.Mode().IsRegular():
		return nil, transfer.Usage(fmt.Errorf("%s: neither a regular file nor a block device", path), "DEST is a file, a folder, a block device or a URL")
	case !o.Force:
		return nil, transfer.Exists(path)
	default:
		// What a link points to is replaced, not the link.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
	}
	return &fileUpload{path: path, force: o.Force}, nil
}

// targetPath returns the path of the file for dest, which may be a folder.
func targetPath(dest, name string) (string, error) {
	if dest == "" {
		return "", transfer.Usage(errors.New("DEST is empty"), "give a path or a URL")
	}
	if fi, err := os.Stat(dest); strings.HasSuffix(dest, "/") || err == nil && fi.IsDir() {
		return filepath.Join(dest, name), nil
	}
	return filepath.Clean(dest), nil
}

func checkFolder(dir string) error {
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(strings.SplitN(dir, "/", 2)[0], ":"):
		return transfer.Usage(fmt.Errorf("folder %s: %w", dir, fs.ErrNotExist), "a file on a server is written sftp://[user@]host/path")
	case errors.Is(err, fs.ErrNotExist):
		return transfer.Usage(fmt.Errorf("folder %s: %w", dir, fs.ErrNotExist), "make it with: mkdir -p %s", dir)
	case err != nil:
		return err
	case !fi.IsDir():
		return transfer.Usage(fmt.Errorf("%s: not a folder", dir), "give a path in an existing folder")
	}
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return transfer.Usage(fmt.Errorf("folder %s: %w", dir, err), "choose a folder that you may write to")
	}
	return nil
}

func (u *fileUpload) String() string { return u.path }

// Dir implements [servers.Local].
func (u *fileUpload) Dir() string { return filepath.Dir(u.path) }

// Create implements [servers.Local].
func (u *fileUpload) Create() (*os.File, error) {
	part, err := createPart(u.path)
	if err != nil {
		return nil, err
	}
	u.part = part
	return part.File, nil
}

// Send implements [servers.Upload].
func (u *fileUpload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	need, err := transfer.DataSize(src)
	if err != nil {
		return err
	}
	if free, ok := FreeSpace(u.Dir()); ok && need > free {
		return transfer.NoSpace(u.path, need, free)
	}
	if u.part == nil {
		if _, err := u.Create(); err != nil {
			return err
		}
	}
	f := u.part.File
	if err := f.Truncate(src.Size()); err != nil {
		return u.wrap(err)
	}
	if err := (transfer.Sender{Dst: f, Workers: fileWorkers, Chunk: fileChunk, Log: log}).Send(ctx, src); err != nil {
		return u.wrap(err)
	}
	return u.wrap(f.Sync())
}

// FreeSpace returns the bytes that this process may still write below dir. A
// file system without any space tells nothing.
func FreeSpace(dir string) (int64, bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return 0, false
	}
	return int64(st.Bavail) * st.Bsize, true
}

// ReadBack implements [servers.ReadBacker].
func (u *fileUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	r := io.NewSectionReader(u.part, off, length)
	n, err := io.CopyBuffer(w, transfer.ContextReader{Ctx: ctx, Reader: r}, make([]byte, fileChunk))
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	return u.wrap(err)
}

// Publish implements [servers.Upload].
func (u *fileUpload) Publish(context.Context) error {
	err := u.part.publish(u.path, u.force)
	if errors.Is(err, fs.ErrExist) {
		return transfer.Exists(u.path)
	}
	return u.wrap(err)
}

// Close implements [servers.Upload]. A later run can't find a file without a
// name.
func (u *fileUpload) Close(bool) error {
	if u.part == nil {
		return nil
	}
	return u.part.close()
}

func (u *fileUpload) wrap(err error) error { return wrapPath(u.path, err) }

// wrapPath names the target in an error, in place of a file without a name.
func wrapPath(path string, err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", path, err)
}

// FilePath returns the path of a file:// URL (RFC 8089).
func FilePath(dest string) (string, error) {
	u, err := url.Parse(dest)
	switch {
	case err != nil || u.Host != "" && u.Host != "localhost":
		return "", transfer.Usage(fmt.Errorf("%s: not a path of this machine", transfer.Redacted(dest)), "write file:///path, with percent signs as %%25")
	case u.Path == "" || strings.ContainsRune(u.Path, 0):
		return "", transfer.Usage(fmt.Errorf("%s: no path", dest), "write file:///path")
	}
	return u.Path, nil
}
