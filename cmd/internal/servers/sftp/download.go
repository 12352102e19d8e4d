package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// download is a file at an account.
type download struct {
	server *server
	path   string
	lanes  int
	size   int64
	mtime  time.Time // in seconds
}

var _ = (servers.Summer)((*download)(nil))

// OpenSource opens the file that a URL names for fetching.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	target, name, err := parseURL(src)
	if err != nil {
		return nil, err
	}
	d := &download{server: newServer(ctx, target, o), path: name, lanes: max(o.Connections, 1)}
	if err := d.server.connect(ctx, d.String()); err != nil {
		return nil, err
	}
	if err := d.server.do(ctx, d.String(), "look at it", d.look); err != nil {
		d.server.close()
		return nil, err
	}
	return d, nil
}

func (d *download) look(c *conn) error {
	fi, err := c.Stat(d.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &cli.Error{Err: fmt.Errorf("%s: %w", d, err), Code: cli.ExitServer, Hint: fmt.Sprintf("see what is there: %s ls", d.server.target)}
	case err != nil:
		return err
	case !fi.Mode().IsRegular():
		return transfer.Usage(fmt.Errorf("%s: not a regular file", d), "SRC is one file")
	}
	d.size, d.mtime = fi.Size(), fi.ModTime()
	return nil
}

func (d *download) Size() int64 { return d.size }

// Version implements [servers.Download].
func (d *download) Version() string { return fmt.Sprintf("%d@%d", d.size, d.mtime.Unix()) }

func (d *download) String() string { return d.server.url(d.path) }

// Lanes implements [servers.Download]: each has a connection.
func (d *download) Lanes() int { return d.lanes }

// Read implements [servers.Download].
func (d *download) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = d.size - off
	}
	err := d.server.try(ctx, func(c *conn) error {
		f, err := c.Open(d.path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := d.checkVersion(c); err != nil {
			return err
		}
		p := transfer.Pipeline{Src: f, Requests: c.requests(), Chunk: c.packet}
		if err := p.Read(ctx, w, off, length); err != nil {
			return err
		}
		return d.checkVersion(c)
	})
	if ctx.Err() != nil {
		return err
	}
	return transfer.ServerError(d.String(), "read", err)
}

// checkVersion looks whether the file is still that which was opened.
func (d *download) checkVersion(c *conn) error {
	fi, err := c.Stat(d.path)
	if err != nil {
		return err
	}
	if fi.Size() != d.size || !fi.ModTime().Equal(d.mtime) {
		return transfer.Lasting(errors.New("the file has changed on the server"))
	}
	return nil
}

// Checksum implements [servers.Summer] with a connection of its own.
func (d *download) Checksum(ctx context.Context) (servers.Checksum, error) {
	path, err := d.server.absolute(ctx, d.String(), d.path)
	if err != nil {
		return servers.Checksum{}, err
	}
	sum, err := d.server.target.Checksum(ctx, d.server.retry, d.String(), path)
	if errors.Is(err, errors.ErrUnsupported) {
		// Not so if the server is gone: it may have a checksum later.
		if gone := d.server.do(ctx, d.String(), "look at it", d.look); gone != nil {
			return servers.Checksum{}, gone
		}
	}
	return sum, err
}

// Close implements [servers.Download].
func (d *download) Close() error {
	d.server.close()
	return nil
}
