package servers

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
)

// sftpNote is after how many bytes more a note is made of what has arrived.
const sftpNote = 4 << 20

// sftpUpload is an upload to a hidden file beside the target, which is renamed.
type sftpUpload struct {
	server      *sftpServer
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

// sftpState is what a later run needs to go on.
type sftpState struct {
	Part    string `json:"part"`
	Arrived int64  `json:"arrived"`
}

var _ = (Checker)((*sftpUpload)(nil))

func openSFTP(ctx context.Context, dest string, o Options) (Upload, error) {
	target, name, err := parseSFTP(dest)
	if err != nil {
		return nil, err
	}
	u := &sftpUpload{server: newSFTPServer(ctx, target, o), path: name, force: o.Force, connections: max(o.Connections, 1)}
	if err := u.server.connect(ctx, u.String()); err != nil {
		return nil, err
	}
	err = u.server.do(ctx, u.String(), "look at it", func(c *sftpConn) error { return u.look(c, o.Name) })
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
func (u *sftpUpload) look(c *sftpConn, name string) error {
	fi, err := c.Stat(u.path)
	if isFolder := err == nil && fi.IsDir(); isFolder || strings.HasSuffix(u.path, "/") {
		u.path = remoteJoin(u.path, name)
		fi, err = c.Stat(u.path)
	}
	if sftpLost(err) {
		return err
	}
	folder := remoteFolder(u.path)
	if d, err := c.Stat(folder); errors.Is(err, fs.ErrNotExist) || err == nil && !d.IsDir() {
		return &cli.Error{
			Err:  fmt.Errorf("%s: no folder %s on the server", u, folder),
			Hint: fmt.Sprintf("make it with: %s mkdir -p %s", u.server.target, shellQuote(folder)),
			Code: cli.ExitServer,
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// A symbolic link to nothing is there, too; --force replaces it.
		if _, err := c.Lstat(u.path); err == nil && !u.force {
			return exists(u.String())
		}
		return nil
	case err != nil:
		return err
	case fi.IsDir():
		return usage(fmt.Errorf("%s: is a folder", u), "remove it, or give the file another name")
	case !fi.Mode().IsRegular():
		return usage(fmt.Errorf("%s: not a regular file", u), "choose another name")
	case !u.force:
		return exists(u.String())
	}
	return u.follow(c)
}

// follow makes what a symbolic link points to the target: that is replaced, not
// the link.
func (u *sftpUpload) follow(c *sftpConn) error {
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
			to = remoteJoin(remoteFolder(u.path), to)
		}
		u.path = to
	}
	return usage(fmt.Errorf("%s: too many symbolic links", u), "choose another name")
}

// resume takes what an earlier run has kept.
func (u *sftpUpload) resume(note json.RawMessage) error {
	if note == nil {
		return nil
	}
	var state sftpState
	if err := json.Unmarshal(note, &state); err != nil {
		return fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
	}
	if state.Part != "" && (!isHiddenName(state.Part) || state.Arrived < 0) {
		return fmt.Errorf("%s: what an earlier run has kept: %q at %d is no part of a file", u, state.Part, state.Arrived)
	}
	u.part, u.arrived = state.Part, state.Arrived
	return nil
}

func (u *sftpUpload) String() string { return u.server.url(u.path) }

// partPath is the path of the part on the server.
func (u *sftpUpload) partPath() string { return remoteJoin(remoteFolder(u.path), u.part) }

// Check implements [Checker], where the server tells what is free.
func (u *sftpUpload) Check(ctx context.Context, f File) error {
	return u.server.do(ctx, u.String(), "look for space", func(c *sftpConn) error {
		free, ok := u.freeSpace(c)
		// What an earlier run has sent takes no more space.
		if need := f.Data - u.arrived; ok && need > free {
			return noSpace(u.String(), need, free)
		}
		return nil
	})
}

func (u *sftpUpload) freeSpace(c *sftpConn) (int64, bool) {
	if !c.has("statvfs@openssh.com") {
		return 0, false
	}
	st, err := c.StatVFS(remoteFolder(u.path))
	if err != nil || st.Blocks == 0 {
		return 0, false // 0: it tells nothing
	}
	return int64(st.Bavail * st.Frsize), true
}

// Send implements [Upload].
func (u *sftpUpload) Send(ctx context.Context, src Source, log Log) error {
	u.server.retry.say = log.Say
	u.size = src.Size()
	u.server.expect(u.size)
	err := u.server.do(ctx, u.String(), "create a file beside it", func(c *sftpConn) error { return u.begin(c, src, log) })
	if err != nil {
		return err
	}
	return u.server.do(ctx, u.String(), "send", func(c *sftpConn) error { return u.sendRest(ctx, c, src, log) })
}

// begin makes sure that there is a part of the file's size.
func (u *sftpUpload) begin(c *sftpConn, src Source, log Log) error {
	if u.part != "" && u.arrived > 0 {
		fi, err := c.Lstat(u.partPath())
		switch {
		case err == nil && fi.Mode().IsRegular() && fi.Size() == src.Size() && u.arrived <= src.Size():
			kept, err := dataBefore(src, u.arrived)
			log.Kept(kept)
			return err
		case sftpLost(err):
			return err
		}
		log.Say("what an earlier run has sent is not on the server any more; beginning anew")
	}
	if u.part == "" {
		u.part = hiddenName(path.Base(u.path))
	}
	u.arrived = 0
	log.Keep(sftpState{Part: u.part})
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
func (u *sftpUpload) sendRest(ctx context.Context, c *sftpConn, src Source, log Log) error {
	f, err := c.OpenFile(u.partPath(), os.O_WRONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	more := u.openMore(ctx, c, log)
	defer u.closeMore(more)
	from, noted := u.arrived, u.arrived
	counted := &countingLog{Log: log}
	s := sender{dst: append(sftpLanes{{c, f}}, more...), chunk: c.packet, from: from, log: counted}
	s.workers = (1 + len(more)) * c.requests()
	s.arrived = func(off int64) {
		u.server.retry.progress()
		u.arrived = off
		if off-noted >= sftpNote {
			noted = off
			log.Keep(sftpState{u.part, off})
		}
	}
	if err := s.send(ctx, src); err != nil {
		// What arrived behind a gap will be sent again.
		if kept, e := dataBetween(src, from, u.arrived); e == nil {
			log.Sent(kept - counted.sent.Load())
		}
		log.Keep(sftpState{u.part, u.arrived})
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
	log.Keep(sftpState{u.part, u.size})
	return nil
}

// explain finds the reason for a write that the server refused: SFTP has no
// word for a full disk.
func (u *sftpUpload) explain(c *sftpConn, err error) error {
	if !sftpAnswered(err) {
		return err
	}
	if free, ok := u.freeSpace(c); ok && free < c.packet {
		return noSpace(u.String(), c.packet, free)
	}
	return err
}

// Close implements [Upload].
func (u *sftpUpload) Close(keep bool) error {
	defer u.server.close()
	if u.part == "" || keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), sftpGrace)
	defer cancel()
	c, err := u.server.take(ctx, sshNoPrompt)
	if err == nil {
		timer := time.AfterFunc(sftpGrace, c.hangUp)
		u.restore(c)
		err = c.Remove(u.partPath())
		timer.Stop()
		u.server.give(c)
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		u.part = ""
		return nil
	}
	return serverError(u.String(), fmt.Sprintf("partial file %s is left over on the server", u.partPath()), err)
}
