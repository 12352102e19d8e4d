package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"flatimg/cmd/internal/cli"
)

// sftpDownload is a file at an account.
type sftpDownload struct {
	server *sftpServer
	path   string
	lanes  int
	size   int64
	mtime  time.Time // in seconds
}

var _ = (Summer)((*sftpDownload)(nil))

func openSFTPSource(ctx context.Context, src string, o Options) (Download, error) {
	target, name, err := parseSFTP(src)
	if err != nil {
		return nil, err
	}
	d := &sftpDownload{server: newSFTPServer(ctx, target, o), path: name, lanes: max(o.Connections, 1)}
	if err := d.server.connect(ctx, d.String()); err != nil {
		return nil, err
	}
	if err := d.server.do(ctx, d.String(), "look at it", d.look); err != nil {
		d.server.close()
		return nil, err
	}
	return d, nil
}

func (d *sftpDownload) look(c *sftpConn) error {
	fi, err := c.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &cli.Error{Err: fmt.Errorf("%s: %w", d, err), Code: cli.ExitServer, Hint: fmt.Sprintf("see what is there: %s ls", d.server.target)}
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return usage(fmt.Errorf("%s: not a regular file", d), "SRC is one file")
	}
	d.size, d.mtime = fi.Size(), fi.ModTime()
	return nil
}

func (d *sftpDownload) Size() int64 { return d.size }

// Version implements [Download].
func (d *sftpDownload) Version() string { return fmt.Sprintf("%d@%d", d.size, d.mtime.Unix()) }

func (d *sftpDownload) String() string { return d.server.url(d.path) }

// Lanes implements [Download]: each has a connection.
func (d *sftpDownload) Lanes() int { return d.lanes }

// Read implements [Download].
func (d *sftpDownload) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = d.size - off
	}
	err := d.server.try(ctx, func(c *sftpConn) error {
		f, err := c.Open(d.path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := d.checkVersion(c); err != nil {
			return err
		}
		p := pipeline{src: f, requests: c.requests(), chunk: c.packet}
		if err := p.read(ctx, w, off, length); err != nil {
			return err
		}
		return d.checkVersion(c)
	})
	if ctx.Err() != nil {
		return err
	}
	return serverError(d.String(), "read", err)
}

// checkVersion looks whether the file is still that which was opened.
func (d *sftpDownload) checkVersion(c *sftpConn) error {
	fi, err := c.Stat(d.path)
	if err != nil {
		return err
	}
	if fi.Size() != d.size || !fi.ModTime().Equal(d.mtime) {
		return lasting{errors.New("the file has changed on the server")}
	}
	return nil
}

// Checksum implements [Summer] with a connection of its own.
func (d *sftpDownload) Checksum(ctx context.Context) (Checksum, error) {
	path, err := d.server.absolute(ctx, d.String(), d.path)
	if err != nil {
		return Checksum{}, err
	}
	sum, err := d.server.target.checksum(ctx, d.server.retry, d.String(), path)
	if errors.Is(err, errors.ErrUnsupported) {
		// Not so if the server is gone: it may have a checksum later.
		if gone := d.server.do(ctx, d.String(), "look at it", d.look); gone != nil {
			return Checksum{}, gone
		}
	}
	return sum, err
}

// Close implements [Download].
func (d *sftpDownload) Close() error {
	d.server.close()
	return nil
}
