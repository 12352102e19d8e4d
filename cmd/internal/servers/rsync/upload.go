// Package rsync sends files by the system's rsync, to a daemon or over ssh, and
// fetches them.
package rsync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// upload is an upload by the user's own rsync. rsync can't rename, so the file
// is sent to a hidden folder beside the target,
//
//	FOLDER/.NAME.part-XXXX/NAME
//
// in place, so that what has arrived stays there when the line breaks and takes
// no space twice; later it gets its final name from there, see [upload.Publish].
// A daemon's users can do no more than that, and neither may an account whose
// shell is for rsync only.
type upload struct {
	server *server
	path   string // of the target on the server
	force  bool

	part  string      // the hidden folder's name; empty: there is none
	file  string      // of this machine, under its final name
	local string      // a folder made for that; empty: there is none
	size  int64       // of the file
	log   servers.Log // nil until Send
}

// uploadState is what a later run needs to go on.
type uploadState struct {
	Part string `json:"part"`
}

// Open opens the file that a URL names as a destination.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	server, name, err := newServer(ctx, dest, o)
	if err != nil {
		return nil, err
	}
	u := &upload{server: server, path: name, force: o.Force}
	if err := u.look(ctx, o.Name); err != nil {
		return nil, u.wrap(ctx, "look at it", err)
	}
	if o.Resume == nil {
		return u, nil
	}
	var state uploadState
	if err := json.Unmarshal(o.Resume, &state); err != nil {
		return nil, fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
	}
	if state.Part != "" && !transfer.IsHiddenName(state.Part) {
		return nil, fmt.Errorf("%s: what an earlier run has kept: %q is no part of a file", u, state.Part)
	}
	u.part = state.Part
	return u, nil
}

// look looks at the target and its folder. A failure is told at once: a host or
// a name may be mistyped.
func (u *upload) look(ctx context.Context, name string) error {
	entry, err := u.server.stat(ctx, u.path)
	if isFolder := err == nil && entry.kind == 'd'; isFolder || strings.HasSuffix(u.path, "/") {
		if err := checkPath(name); err != nil {
			return transfer.Usage(fmt.Errorf("%s: %w", name, err), "give the file another name")
		}
		u.path = ssh.RemoteJoin(u.path, name)
		entry, err = u.server.stat(ctx, u.path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return u.lookAtFolder(ctx)
	case err != nil:
		return err
	case entry.kind == 'd':
		return transfer.Usage(fmt.Errorf("%s: is a folder", u), "remove it, or give the file another name")
	case entry.kind != '-':
		return transfer.Usage(fmt.Errorf("%s: not a regular file", u), "choose another name")
	case !u.force:
		return transfer.Exists(u.String())
	}
	return nil
}

func (u *upload) lookAtFolder(ctx context.Context) error {
	entry, err := u.server.stat(ctx, ssh.RemoteFolder(u.path))
	if errors.Is(err, fs.ErrNotExist) || err == nil && entry.kind != 'd' {
		return &cli.Error{
			Err:  fmt.Errorf("%s: no folder %s on the server", u, ssh.RemoteFolder(u.path)),
			Hint: "make it first, or choose a folder that is there",
			Code: cli.ExitServer,
		}
	}
	return err
}

func (u *upload) String() string { return u.server.url(u.path) }

// folder is the argument for the target's folder, partFolder for the hidden one.
func (u *upload) folder() string { return u.server.arg(ssh.RemoteFolder(u.path) + "/") }

func (u *upload) partFolder() string { return u.folder() + u.part + "/" }

// wrap says what an error is about.
func (u *upload) wrap(ctx context.Context, what string, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*cli.Error](err); ok && !strings.HasPrefix(err.Error(), u.String()) {
		return &cli.Error{Err: fmt.Errorf("%s: %s: %w", u, what, err), Hint: e.Hint, Code: e.Code}
	}
	return transfer.ServerError(u.String(), what, err)
}

// Send implements [servers.Upload].
func (u *upload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	file, ok := src.(interface{ Path() string })
	if !ok {
		return transfer.Usage(fmt.Errorf("%s: rsync sends a file, not a stream", u), "leave out --stream")
	}
	u.log, u.size, u.server.retry.Say = log, src.Size(), log.Say
	if err := u.link(file.Path()); err != nil {
		return err
	}
	resumed := u.part != ""
	if !resumed {
		u.part = transfer.HiddenName(path.Base(u.path))
		log.Keep(uploadState{u.part})
	}
	meter := &meter{src: src, log: log}
	try := 0
	err := u.server.retry.Do(ctx, "send", func() error {
		try++
		arrived, err := u.arrived(ctx, resumed || try > 1)
		if err != nil {
			return err
		}
		if try == 1 && resumed {
			if arrived == 0 {
				log.Say("what an earlier run has sent is not on the server any more; beginning anew")
			}
			kept, err := transfer.DataBefore(src, arrived)
			if err != nil {
				return err
			}
			log.Kept(kept)
			meter.at = arrived
		}
		meter.move(arrived)
		return u.send(ctx, src, arrived, meter)
	})
	if err == nil {
		meter.move(u.size)
	}
	return u.wrap(ctx, "send", err)
}

// link makes a folder with a link to the file under its final name, unless that
// is its name anyway.
func (u *upload) link(file string) (err error) {
	if u.file, err = filepath.Abs(file); err != nil || filepath.Base(u.file) == path.Base(u.path) {
		return err
	}
	if u.local, err = os.MkdirTemp("", "flatimg-rsync-"); err != nil {
		return err
	}
	to := u.file
	u.file = filepath.Join(u.local, path.Base(u.path))
	return os.Symlink(to, u.file)
}

// arrived returns how much of the part is on the server, at most all.
func (u *upload) arrived(ctx context.Context, look bool) (int64, error) {
	if !look {
		return 0, nil
	}
	entry, err := u.server.stat(ctx, ssh.RemoteJoin(ssh.RemoteFolder(u.path), u.part+"/"+path.Base(u.path)))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return min(entry.size, u.size), err
}

// send sends what has not arrived yet.
func (u *upload) send(ctx context.Context, src servers.Source, arrived int64, meter *meter) error {
	data, err := transfer.DataSize(src)
	if err != nil {
		return err
	}
	args := sends()
	if data < u.size/2 {
		// rsync sends the zeros of holes: compressed, they are next to nothing.
		args = append(args, "--compress")
	}
	progress := func(off int64) {
		if off > meter.at {
			u.server.retry.Progress()
			meter.move(off)
		}
	}
	return u.server.transfer(ctx, arrived, u.size, progress, append(args, u.file, u.partFolder())...)
}

// sends are the options of all that sends: the file behind the link, with its
// time, by which rsync knows it again, and the mode that is usual there.
func sends() []string { return []string{"--copy-links", "--times", "--chmod=ugo=rwX"} }

// Close implements [servers.Upload].
func (u *upload) Close(keep bool) error {
	if u.local != "" {
		defer os.RemoveAll(u.local)
	}
	if u.part == "" || keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	if err := u.remove(ctx); err != nil {
		return u.wrap(context.Background(), "partial file "+u.part+" is left over on the server", err)
	}
	u.part = ""
	return nil
}

// remove removes the hidden folder: rsync deletes on the server what an empty
// folder here has not got, of what the patterns include.
func (u *upload) remove(ctx context.Context) error {
	empty, err := os.MkdirTemp("", "flatimg-rsync-")
	if err != nil {
		return err
	}
	defer os.Remove(empty)
	_, err = u.server.run(ctx, 0, "--recursive", "--delete",
		"--include=/"+u.part, "--include=/"+u.part+"/**", "--exclude=*", empty+"/", u.folder())
	return err
}
