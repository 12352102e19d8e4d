package servers

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
)

// rsyncUpload is an upload by the user's own rsync. rsync can't rename, so the
// file is sent to a hidden folder beside the target,
//
//	FOLDER/.NAME.part-XXXX/NAME
//
// in place, so that what has arrived stays there when the line breaks and takes
// no space twice; later it gets its final name from there, see
// [rsyncUpload.Publish]. A daemon's users can do no more than that, and neither
// may an account whose shell is for rsync only.
type rsyncUpload struct {
	server *rsyncServer
	path   string // of the target on the server
	force  bool

	part  string // the hidden folder's name; empty: there is none
	file  string // of this machine, under its final name
	local string // a folder made for that; empty: there is none
	size  int64  // of the file
	log   Log    // nil until Send
}

// rsyncState is what a later run needs to go on.
type rsyncState struct {
	Part string `json:"part"`
}

func openRsync(ctx context.Context, dest string, o Options) (Upload, error) {
	server, name, err := newRsyncServer(ctx, dest, o)
	if err != nil {
		return nil, err
	}
	u := &rsyncUpload{server: server, path: name, force: o.Force}
	if err := u.look(ctx, o.Name); err != nil {
		return nil, u.wrap(ctx, "look at it", err)
	}
	if o.Resume == nil {
		return u, nil
	}
	var state rsyncState
	if err := json.Unmarshal(o.Resume, &state); err != nil {
		return nil, fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
	}
	if state.Part != "" && !isHiddenName(state.Part) {
		return nil, fmt.Errorf("%s: what an earlier run has kept: %q is no part of a file", u, state.Part)
	}
	u.part = state.Part
	return u, nil
}

// look looks at the target and its folder. A failure is told at once: a host or
// a name may be mistyped.
func (u *rsyncUpload) look(ctx context.Context, name string) error {
	entry, err := u.server.stat(ctx, u.path)
	if isFolder := err == nil && entry.kind == 'd'; isFolder || strings.HasSuffix(u.path, "/") {
		if err := checkRsyncPath(name); err != nil {
			return usage(fmt.Errorf("%s: %w", name, err), "give the file another name")
		}
		u.path = remoteJoin(u.path, name)
		entry, err = u.server.stat(ctx, u.path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return u.lookAtFolder(ctx)
	case err != nil:
		return err
	case entry.kind == 'd':
		return usage(fmt.Errorf("%s: is a folder", u), "remove it, or give the file another name")
	case entry.kind != '-':
		return usage(fmt.Errorf("%s: not a regular file", u), "choose another name")
	case !u.force:
		return exists(u.String())
	}
	return nil
}

func (u *rsyncUpload) lookAtFolder(ctx context.Context) error {
	entry, err := u.server.stat(ctx, remoteFolder(u.path))
	if errors.Is(err, fs.ErrNotExist) || err == nil && entry.kind != 'd' {
		return &cli.Error{
			Err:  fmt.Errorf("%s: no folder %s on the server", u, remoteFolder(u.path)),
			Hint: "make it first, or choose a folder that is there",
			Code: cli.ExitServer,
		}
	}
	return err
}

func (u *rsyncUpload) String() string { return u.server.url(u.path) }

// folder is the argument for the target's folder, partFolder for the hidden one.
func (u *rsyncUpload) folder() string { return u.server.arg(remoteFolder(u.path) + "/") }

func (u *rsyncUpload) partFolder() string { return u.folder() + u.part + "/" }

// wrap says what an error is about.
func (u *rsyncUpload) wrap(ctx context.Context, what string, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*cli.Error](err); ok && !strings.HasPrefix(err.Error(), u.String()) {
		return &cli.Error{Err: fmt.Errorf("%s: %s: %w", u, what, err), Hint: e.Hint, Code: e.Code}
	}
	return serverError(u.String(), what, err)
}

// Send implements [Upload].
func (u *rsyncUpload) Send(ctx context.Context, src Source, log Log) error {
	file, ok := src.(interface{ Path() string })
	if !ok {
		return usage(fmt.Errorf("%s: rsync sends a file, not a stream", u), "leave out --stream")
	}
	u.log, u.size, u.server.retry.say = log, src.Size(), log.Say
	if err := u.link(file.Path()); err != nil {
		return err
	}
	resumed := u.part != ""
	if !resumed {
		u.part = hiddenName(path.Base(u.path))
		log.Keep(rsyncState{u.part})
	}
	meter := &rsyncMeter{src: src, log: log}
	try := 0
	err := u.server.retry.do(ctx, "send", func() error {
		try++
		arrived, err := u.arrived(ctx, resumed || try > 1)
		if err != nil {
			return err
		}
		if try == 1 && resumed {
			if arrived == 0 {
				log.Say("what an earlier run has sent is not on the server any more; beginning anew")
			}
			kept, err := dataBefore(src, arrived)
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
func (u *rsyncUpload) link(file string) (err error) {
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
func (u *rsyncUpload) arrived(ctx context.Context, look bool) (int64, error) {
	if !look {
		return 0, nil
	}
	entry, err := u.server.stat(ctx, remoteJoin(remoteFolder(u.path), u.part+"/"+path.Base(u.path)))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return min(entry.size, u.size), err
}

// send sends what has not arrived yet.
func (u *rsyncUpload) send(ctx context.Context, src Source, arrived int64, meter *rsyncMeter) error {
	data, err := dataSize(src)
	if err != nil {
		return err
	}
	args := rsyncSends()
	if data < u.size/2 {
		// rsync sends the zeros of holes: compressed, they are next to nothing.
		args = append(args, "--compress")
	}
	progress := func(off int64) {
		if off > meter.at {
			u.server.retry.progress()
			meter.move(off)
		}
	}
	return u.server.transfer(ctx, arrived, u.size, progress, append(args, u.file, u.partFolder())...)
}

// rsyncSends are the options of all that sends: the file behind the link, with
// its time, by which rsync knows it again, and the mode that is usual there.
func rsyncSends() []string { return []string{"--copy-links", "--times", "--chmod=ugo=rwX"} }

// Close implements [Upload].
func (u *rsyncUpload) Close(keep bool) error {
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
func (u *rsyncUpload) remove(ctx context.Context) error {
	empty, err := os.MkdirTemp("", "flatimg-rsync-")
	if err != nil {
		return err
	}
	defer os.Remove(empty)
	_, err = u.server.run(ctx, 0, "--recursive", "--delete",
		"--include=/"+u.part, "--include=/"+u.part+"/**", "--exclude=*", empty+"/", u.folder())
	return err
}
