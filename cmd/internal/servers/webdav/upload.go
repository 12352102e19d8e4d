// Package webdav sends files to web servers by PUT (RFC 9110), and to those with
// WebDAV (RFC 4918) under a hidden name first, and fetches files by GET.
package webdav

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// pieceSize is how many bytes are sent in one request where a file can be
// written in pieces: what is lost at most when the line breaks.
const pieceSize = 64 << 20

// upload is an upload by PUT (RFC 9110, section 9.3.4) to a hidden file beside
// the target, which MOVE gives its name.
type upload struct {
	client *web.Client
	to     web.Address
	force  bool
	direct bool // to the target itself, since the server can't rename
	can    abilities

	piece   int64          // bytes in one request, with Ranges
	state   uploadState    // Part is empty until Send has begun
	resumed bool           // state is that of an earlier run
	src     servers.Source // nil until Send
	sent    bool           // all has arrived
	gone    bool           // the part is not there any more
	// published: the part has become the target, it seems after an earlier run.
	published bool
}

// uploadState is what the next run needs.
type uploadState struct {
	// Part is the name of the hidden file.
	Part string
	// Size of the whole in bytes.
	Size int64
	// Offset before which all has arrived, with Ranges; Size in any case when
	// all has.
	Offset int64
	abilities
}

var _ = (servers.Checker)((*upload)(nil))

// Open opens the file that a URL names as a destination.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	to, err := web.ParseAddress(dest)
	if err != nil {
		return nil, err
	}
	if to.URL.RawQuery != "" || to.URL.ForceQuery {
		return nil, transfer.Usage(fmt.Errorf("%s: a query does not name a file", to), "a question mark in a path is written as %%3F")
	}
	if to.Name() == "" {
		to = to.Sibling(o.Name)
	}
	client, err := web.NewClient(ctx, to, o, false)
	if err != nil {
		return nil, err
	}
	u := &upload{client: client, to: to, force: o.Force, piece: pieceSize}
	if err := u.open(ctx, o); err != nil {
		client.Close()
		return nil, err
	}
	return u, nil
}

// open looks at the target, and asks what the server can do unless an earlier
// run has.
func (u *upload) open(ctx context.Context, o servers.Options) error {
	isFolder, err := u.isFolder(ctx)
	if err != nil {
		return u.fail("look at it", err)
	}
	if isFolder {
		folder, file := u.to.Split()
		u.to = u.to.At(folder + file + "/").Sibling(o.Name)
	}
	if o.Resume != nil {
		return u.resume(ctx, o.Resume)
	}
	if err := u.checkAbsent(ctx); err != nil {
		return err
	}
	if u.can, err = u.probe(ctx); err != nil {
		return u.fail("find out what the server can do", err)
	}
	if u.can.Move {
		return nil
	}
	if !o.Direct {
		return &cli.Error{
			Err:  fmt.Errorf("%s: the server can't rename files (MOVE of WebDAV)", u),
			Hint: "--direct sends to the final name; then a partial file is seen there, unless the server hides it",
			Code: cli.ExitServer,
		}
	}
	u.direct = true
	return nil
}

// resume takes over what an earlier run has kept. It may have ended between the
// rename and its report: then the target is there, and the part is not.
func (u *upload) resume(ctx context.Context, kept json.RawMessage) error {
	if err := json.Unmarshal(kept, &u.state); err != nil {
		return fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
	}
	u.resumed, u.can = true, u.state.abilities
	err := u.checkAbsent(ctx)
	if errors.Is(err, fs.ErrExist) && u.state.Offset == u.state.Size {
		moved, movedErr := u.moved(ctx)
		if movedErr != nil {
			return u.fail("look at it", movedErr)
		}
		if moved {
			u.published = true
			return nil
		}
	}
	return err
}

// isFolder says whether the target is a folder: servers of files redirect its
// name to that with a slash, those of WebDAV call it a collection.
func (u *upload) isFolder(ctx context.Context) (bool, error) {
	moved := []int{http.StatusMovedPermanently, http.StatusFound, http.StatusPermanentRedirect}
	resp, err := u.client.Do(ctx, "look at it", web.Request{Method: "HEAD", To: u.to, Also: moved})
	if web.UnlessMissing(err) != nil {
		return false, err
	}
	if err != nil || resp.StatusCode < 300 {
		// An Apache that shows no lists of files calls a folder missing.
		p, err := askProperties(ctx, u.client, u.to)
		return p.collection, err
	}
	to, err := resp.Location()
	if err == nil && to.Host == u.to.URL.Host && to.Path == u.to.URL.Path+"/" {
		return true, nil
	}
	return false, u.client.AnswerError(resp)
}

// size returns that of a file; -1: it is not there.
func (u *upload) size(ctx context.Context, a web.Address) (size int64, err error) {
	resp, err := u.client.Do(ctx, "look at it", web.Request{Method: "HEAD", To: a})
	if err == nil && resp.ContentLength >= 0 {
		return resp.ContentLength, nil
	}
	// Some don't take HEAD, and Apache does not tell the size of an empty file
	// there, nor of one that it would pack.
	if web.UnlessMissing(err) == nil {
		size, err = u.askSize(ctx, a)
	}
	if web.HasStatus(err, http.StatusNotFound, http.StatusGone) {
		return -1, nil
	}
	return size, err
}

// askSize reads the first byte, whose answer tells the size.
func (u *upload) askSize(ctx context.Context, a web.Address) (int64, error) {
	resp, err := u.client.Send(ctx, web.Request{
		Method: "GET", To: a, Also: []int{http.StatusRequestedRangeNotSatisfiable},
		Header: map[string]string{"Range": "bytes=0-0", "Accept-Encoding": "identity"},
	})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := readAnswer(resp)
	if err == nil && answer.size < 0 {
		err = transfer.Lasting(errors.New("the server does not tell the file's size"))
	}
	return answer.size, err
}

// checkAbsent fails when the target is there and must not be.
func (u *upload) checkAbsent(ctx context.Context) error {
	if u.force {
		return nil
	}
	_, err := u.client.Do(ctx, "look at it", web.Request{Method: "HEAD", To: u.to})
	if err == nil {
		return transfer.Exists(u.String())
	}
	return u.fail("look at it", web.UnlessMissing(err))
}

func (u *upload) String() string { return u.to.String() }

// Check implements [servers.Checker].
func (u *upload) Check(ctx context.Context, f servers.File) error {
	// A server that makes sparse files needs room for the data only.
	need := f.Size
	if u.can.Ranges {
		need = f.Data
	}
	p, err := askProperties(ctx, u.client, u.to.Folder())
	if err != nil {
		return u.fail("ask for free space", err)
	}
	if p.free >= 0 && need > p.free {
		return transfer.NoSpace(u.String(), need, p.free)
	}
	return nil
}

// fail says of which destination an error is.
func (u *upload) fail(what string, err error) error { return web.Fail(u.String(), what, err) }
