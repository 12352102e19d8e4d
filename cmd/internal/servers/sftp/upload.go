// Package sftp sends files over SFTP, version 3 as OpenSSH speaks it
// (draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL), and fetches them.
package sftp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// noteEvery is after how many bytes more a note is made of what has arrived.
const noteEvery = 4 << 20

// upload is an upload to a hidden file beside the target, which is renamed.
type upload struct {
	server      *server
	path        string // of the target on the server
	force       bool
	connections int

	// part is the name of the hidden file in the target's folder; empty: there
	// is none.
	part string
	// arrived is the offset before which all of the part has arrived.
	arrived int64
	size    int64 // of the part, once it is sent
}

// uploadState is what a later run needs to go on.
type uploadState struct {
	Part    string `json:"part"`
	Arrived int64  `json:"arrived"`
}

var _ = (servers.Checker)((*upload)(nil))

// Open opens the file that a URL names as a destination.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	target, name, err := parseURL(dest)
	if err != nil {
		return nil, err
	}
	u := &upload{server: newServer(ctx, target, o), path: name, force: o.Force, connections: max(o.Connections, 1)}
	if err := u.server.connect(ctx, u.String()); err != nil {
		return nil, err
	}
	err = u.server.do(ctx, u.String(), "look at it", func(c *conn) error { return u.look(c, o.Name) })
	if err == nil {
		err = u.resume(o.Resume)
	}
	if err != nil {
		u.server.close()
		return nil, err
	}
	return u, nil
}

// look looks at the target and its folder.
func (u *upload) look(c *conn, name string) error {
	fi, err := c.Stat(u.path)
	if isFolder := err == nil && fi.IsDir(); isFolder || strings.HasSuffix(u.path, "/") {
		u.path = ssh.RemoteJoin(u.path, name)
		fi, err = c.Stat(u.path)
	}
	if isLost(err) {
		return err
	}
	folder := ssh.RemoteFolder(u.path)
	if d, err := c.Stat(folder); errors.Is(err, fs.ErrNotExist) || err == nil && !d.IsDir() {
		return &cli.Error{
			Err:  fmt.Errorf("%s: no folder %s on the server", u, folder),
			Hint: fmt.Sprintf("make it with: %s mkdir -p %s", u.server.target, transfer.ShellQuote(folder)),
			Code: cli.ExitServer,
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// A symbolic link to nothing is there, too; --force replaces it.
		if _, err := c.Lstat(u.path); err == nil && !u.force {
			return transfer.Exists(u.String())
		}
		return nil
	case err != nil:
		return err
	case fi.IsDir():
		return transfer.Usage(fmt.Errorf("%s: is a folder", u), "remove it, or give the file another name")
	case !fi.Mode().IsRegular():
		return transfer.Usage(fmt.Errorf("%s: not a regular file", u), "choose another name")
	case !u.force:
		return transfer.Exists(u.String())
	}
	return u.follow(c)
}

// follow makes what a symbolic link points to the target: that is replaced, not
// the link.
func (u *upload) follow(c *conn) error {
	const most = 40 // links, as Linux follows (path_resolution(7))
	for range most {
		fi, err := c.Lstat(u.path)
		if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
			return err
		}
		to, err := c.ReadLink(u.path)
		if err != nil {
			return err
		}
		if !path.IsAbs(to) {
			to = ssh.RemoteJoin(ssh.RemoteFolder(u.path), to)
		}
		u.path = to
	}
	return transfer.Usage(fmt.Errorf("%s: too many symbolic links", u), "choose another name")
}

// resume takes what an earlier run has kept.
func (u *upload) resume(kept json.RawMessage) error {
	if kept == nil {
		return nil
	}
	var state uploadState
	if err := json.Unmarshal(kept, &state); err != nil {
		return fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
	}
	if state.Part != "" && (!transfer.IsHiddenName(state.Part) || state.Arrived < 0) {
		return fmt.Errorf("%s: what an earlier run has kept: %q at %d is no part of a file", u, state.Part, state.Arrived)
	}
	u.part, u.arrived = state.Part, state.Arrived
	return nil
}

func (u *upload) String() string { return u.server.url(u.path) }

// partPath is the path of the part on the server.
func (u *upload) partPath() string { return ssh.RemoteJoin(ssh.RemoteFolder(u.path), u.part) }

// Check implements [servers.Checker], where the server tells what is free.
func (u *upload) Check(ctx context.Context, f servers.File) error {
	return u.server.do(ctx, u.String(), "look for space", func(c *conn) error {
		free, ok := u.freeSpace(c)
		// What an earlier run has sent takes no more space.
		if need := f.Data - u.arrived; ok && need > free {
			return transfer.NoSpace(u.String(), need, free)
		}
		return nil
	})
}

func (u *upload) freeSpace(c *conn) (int64, bool) {
	if !c.has("statvfs@openssh.com") {
		return 0, false
	}
	st, err := c.StatVFS(ssh.RemoteFolder(u.path))
	if err != nil || st.Blocks == 0 {
		return 0, false // 0: it tells nothing
	}
	return int64(st.Bavail * st.Frsize), true
}

// Send implements [servers.Upload].
func (u *upload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	u.server.retry.Say = log.Say
	u.size = src.Size()
	u.server.expect(u.size)
	err := u.server.do(ctx, u.String(), "create a file beside it", func(c *conn) error { return u.begin(c, src, log) })
	if err != nil {
		return err
	}
	return u.server.do(ctx, u.String(), "send", func(c *conn) error { return u.sendRest(ctx, c, src, log) })
}

// begin makes sure that there is a part of the file's size.
func (u *upload) begin(c *conn, src servers.Source, log servers.Log) error {
	if u.part != "" && u.arrived > 0 {
		fi, err := c.Lstat(u.partPath())
		switch {
		case err == nil && fi.Mode().IsRegular() && fi.Size() == src.Size() && u.arrived <= src.Size():
			kept, err := transfer.DataBefore(src, u.arrived)
			log.Kept(kept)
			return err
		case isLost(err):
			return err
		}
		log.Say("what an earlier run has sent is not on the server any more; beginning anew")
	}
	if u.part == "" {
		u.part = transfer.HiddenName(path.Base(u.path))
	}
	u.arrived = 0
	log.Keep(uploadState{Part: u.part})
	f, err := c.OpenFile(u.partPath(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer f.Close()
	// Some servers would take data past the end for an error.
	if err := f.Truncate(src.Size()); err != nil {
		return u.explain(c, err)
	}
	return nil
}

// sendRest sends what has not arrived yet.
func (u *upload) sendRest(ctx context.Context, c *conn, src servers.Source, log servers.Log) error {
	f, err := c.OpenFile(u.partPath(), os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	more := u.openMore(ctx, c, log)
	defer u.closeMore(more)
	from, noted := u.arrived, u.arrived
	counted := &transfer.CountingLog{Log: log}
	s := transfer.Sender{Dst: append(lanes{{c, f}}, more...), Chunk: c.packet, From: from, Log: counted}
	s.Workers = (1 + len(more)) * c.requests()
	s.Arrived = func(off int64) {
		u.server.retry.Progress()
		u.arrived = off
		if off-noted >= noteEvery {
			noted = off
			log.Keep(uploadState{u.part, off})
		}
	}
	if err := s.Send(ctx, src); err != nil {
		// What arrived behind a gap will be sent again.
		if kept, e := transfer.DataBetween(src, from, u.arrived); e == nil {
			log.Sent(kept - counted.Total.Load())
		}
		log.Keep(uploadState{u.part, u.arrived})
		return u.explain(c, err)
	}
	if c.has("fsync@openssh.com") {
		if err := f.Sync(); err != nil {
			return u.explain(c, err)
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	u.arrived = u.size
	log.Keep(uploadState{u.part, u.size})
	return nil
}

// explain finds the reason for a write that the server refused: SFTP has no
// word for a full disk.
func (u *upload) explain(c *conn, err error) error {
	if !answered(err) {
		return err
	}
	if free, ok := u.freeSpace(c); ok && free < c.packet {
		return transfer.NoSpace(u.String(), c.packet, free)
	}
	return err
}

// Close implements [servers.Upload].
func (u *upload) Close(keep bool) error {
	defer u.server.close()
	if u.part == "" || keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	c, err := u.server.take(ctx, ssh.NoPrompt)
	if err == nil {
		timer := time.AfterFunc(grace, c.hangUp)
		u.restore(c)
		err = c.Remove(u.partPath())
		timer.Stop()
		u.server.give(c)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		u.part = ""
		return nil
	}
	return transfer.ServerError(u.String(), fmt.Sprintf("partial file %s is left over on the server", u.partPath()), err)
}
