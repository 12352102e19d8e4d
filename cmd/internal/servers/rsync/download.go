package rsync

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// download is a file that the user's own rsync fetches.
type download struct {
	server *server
	path   string
	entry  entry
}

var _ = (servers.Fetcher)((*download)(nil))
var _ = (servers.Summer)((*download)(nil))

// OpenSource opens the file that a URL names for fetching.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	server, name, err := newServer(ctx, src, o)
	if err != nil {
		return nil, err
	}
	d := &download{server: server, path: name}
	d.entry, err = server.stat(ctx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &cli.Error{Err: fmt.Errorf("%s: %w", d, fs.ErrNotExist), Hint: "see what is there: rsync " + server.arg(ssh.RemoteFolder(name)+"/"), Code: cli.ExitServer}
	case err != nil:
		return nil, d.wrap(ctx, "look at it", err)
	case d.entry.kind != '-':
		return nil, transfer.Usage(fmt.Errorf("%s: not a regular file", d), "SRC is one file")
	}
	return d, nil
}

func (d *download) Size() int64 { return d.entry.size }

// Version implements [servers.Download].
func (d *download) Version() string { return fmt.Sprintf("%d@%s", d.entry.size, d.entry.mtime) }

func (d *download) String() string { return d.server.url(d.path) }

// Lanes implements [servers.Download].
func (d *download) Lanes() int { return 1 }

// Read implements [servers.Download]. rsync has nothing for it: see Fetch.
func (d *download) Read(context.Context, io.Writer, int64, int64) error {
	return transfer.Lasting(fmt.Errorf("%s: rsync fetches whole files: %w", d, errors.ErrUnsupported))
}

// Close implements [servers.Download].
func (d *download) Close() error { return nil }

func (d *download) wrap(ctx context.Context, what string, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return transfer.ServerError(d.String(), what, err)
}

// Fetch implements [servers.Fetcher]. What is at path already stays, if rsync's
// checksum of the whole file says that it is right.
func (d *download) Fetch(ctx context.Context, path string, got func(n int64)) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	err = d.server.retry.Do(ctx, "fetch", func() error { return d.fetch(ctx, path, got) })
	if err != nil {
		return d.wrap(ctx, "fetch", err)
	}
	now, err := d.server.stat(ctx, d.path)
	if err == nil && now != d.entry {
		err = errors.New("the file has changed on the server")
	}
	return d.wrap(ctx, "fetch", err)
}

func (d *download) fetch(ctx context.Context, path string, got func(n int64)) error {
	var have int64
	if fi, err := os.Stat(path); err == nil {
		have = fi.Size()
	}
	told := have
	if have >= d.entry.size {
		told = 0 // it may be wrong anywhere
	}
	progress := func(off int64) {
		if off = min(off, d.entry.size); off > told {
			d.server.retry.Progress()
			got(off - told)
			told = off
		}
	}
	return d.server.transfer(ctx, have, d.entry.size, progress, "--copy-links", d.server.arg(d.path), path)
}

// Checksum implements [servers.Summer]: by the account's shell, or the MD5 by
// which rsync compares files, here with one that is not there.
func (d *download) Checksum(ctx context.Context) (servers.Checksum, error) {
	if d.server.overSSH() {
		sum, err := d.server.target.Checksum(ctx, d.server.retry, d.String(), d.path)
		if !errors.Is(err, errors.ErrUnsupported) {
			return sum, err
		}
	}
	nowhere, err := os.MkdirTemp("", "flatimg-rsync-")
	if err != nil {
		return servers.Checksum{}, err
	}
	defer os.Remove(nowhere)
	var out string
	err = d.server.retry.Do(ctx, "checksum", func() (err error) {
		out, err = d.server.run(ctx, d.entry.size, "--copy-links", "--dry-run", "--checksum", "--checksum-choice=md5",
			"--out-format=%C", d.server.arg(d.path), filepath.Join(nowhere, "file"))
		return err
	})
	if ctx.Err() != nil {
		return servers.Checksum{}, context.Cause(ctx)
	}
	if err != nil && transfer.MayPass(err) {
		return servers.Checksum{}, d.wrap(ctx, "checksum", err) // it may have one later
	}
	sum, hexErr := hex.DecodeString(strings.TrimSpace(out))
	if err != nil || hexErr != nil || len(sum) != 16 {
		return servers.Checksum{}, transfer.NoVerification(d.String(), fmt.Sprintf("no MD5 of the server's rsync: %v", err))
	}
	return servers.Checksum{Algorithm: "md5", Sum: sum, By: "rsync's MD5 on the server"}, nil
}
