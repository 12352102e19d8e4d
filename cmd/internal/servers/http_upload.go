package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"

	"flatimg/cmd/internal/cli"
)

// httpPiece is how many bytes are sent in one request where a file can be
// written in pieces: what is lost at most when the line breaks.
const httpPiece = 64 << 20

// httpUpload is an upload by PUT (RFC 9110, section 9.3.4) to a hidden file
// beside the target, which MOVE gives its name.
type httpUpload struct {
	client *webClient
	to     webAddress
	force  bool
	direct bool // to the target itself, since the server can't rename
	can    httpAbilities

	piece   int64     // bytes in one request, with Ranges
	state   httpState // Part is empty until Send has begun
	resumed bool      // state is that of an earlier run
	src     Source    // nil until Send
	sent    bool      // all has arrived
	gone    bool      // the part is not there any more
	// published: the part has become the target, it seems after an earlier run.
	published bool
}

// httpState is what the next run needs.
type httpState struct {
	// Part is the name of the hidden file.
	Part string
	// Size of the whole in bytes.
	Size int64
	// Offset before which all has arrived, with Ranges; Size in any case when
	// all has.
	Offset int64
	httpAbilities
}

var _ = (Checker)((*httpUpload)(nil))

func openHTTP(ctx context.Context, dest string, o Options) (Upload, error) {
	to, err := parseWeb(dest)
	if err != nil {
		return nil, err
	}
	if to.url.RawQuery != "" || to.url.ForceQuery {
		return nil, usage(fmt.Errorf("%s: a query does not name a file", to), "a question mark in a path is written as %%3F")
	}
	if to.name() == "" {
		to = to.sibling(o.Name)
	}
	client, err := newWebClient(ctx, to, o, false)
	if err != nil {
		return nil, err
	}
	u := &httpUpload{client: client, to: to, force: o.Force, piece: httpPiece}
	if err := u.open(ctx, o); err != nil {
		client.close()
		return nil, err
	}
	return u, nil
}

// open looks at the target, and asks what the server can do unless an earlier
// run has.
func (u *httpUpload) open(ctx context.Context, o Options) error {
	isFolder, err := u.isFolder(ctx)
	if err != nil {
		return u.fail("look at it", err)
	}
	if isFolder {
		folder, file := u.to.split()
		u.to = u.to.at(folder + file + "/").sibling(o.Name)
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
func (u *httpUpload) resume(ctx context.Context, kept json.RawMessage) error {
	if err := json.Unmarshal(kept, &u.state); err != nil {
		return fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
	}
	u.resumed, u.can = true, u.state.httpAbilities
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
func (u *httpUpload) isFolder(ctx context.Context) (bool, error) {
	moved := []int{http.StatusMovedPermanently, http.StatusFound, http.StatusPermanentRedirect}
	resp, err := u.client.do(ctx, "look at it", webRequest{method: "HEAD", to: u.to, also: moved})
	if unlessMissing(err) != nil {
		return false, err
	}
	if err != nil || resp.StatusCode < 300 {
		// An Apache that shows no lists of files calls a folder missing.
		p, err := u.client.properties(ctx, u.to)
		return p.collection, err
	}
	to, err := resp.Location()
	if err == nil && to.Host == u.to.url.Host && to.Path == u.to.url.Path+"/" {
		return true, nil
	}
	return false, u.client.answerError(resp)
}

// unlessMissing is nil for the answers to HEAD that say that there is no such
// file, and of servers that don't take HEAD.
func unlessMissing(err error) error {
	if hasStatus(err, http.StatusNotFound, http.StatusGone, http.StatusMethodNotAllowed, http.StatusNotImplemented) {
		return nil
	}
	return err
}

// size returns that of a file; -1: it is not there.
func (u *httpUpload) size(ctx context.Context, a webAddress) (size int64, err error) {
	resp, err := u.client.do(ctx, "look at it", webRequest{method: "HEAD", to: a})
	if err == nil && resp.ContentLength >= 0 {
		return resp.ContentLength, nil
	}
	// Some don't take HEAD, and Apache does not tell the size of an empty file
	// there, nor of one that it would pack.
	if unlessMissing(err) == nil {
		size, err = u.askSize(ctx, a)
	}
	if hasStatus(err, http.StatusNotFound, http.StatusGone) {
		return -1, nil
	}
	return size, err
}

// askSize reads the first byte, whose answer tells the size.
func (u *httpUpload) askSize(ctx context.Context, a webAddress) (int64, error) {
	resp, err := u.client.send(ctx, webRequest{
		method: "GET", to: a, also: []int{http.StatusRequestedRangeNotSatisfiable},
		header: map[string]string{"Range": "bytes=0-0", "Accept-Encoding": "identity"},
	})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	answer, err := readAnswer(resp)
	if err == nil && answer.size < 0 {
		err = lasting{errors.New("the server does not tell the file's size")}
	}
	return answer.size, err
}

// checkAbsent fails when the target is there and must not be.
func (u *httpUpload) checkAbsent(ctx context.Context) error {
	if u.force {
		return nil
	}
	_, err := u.client.do(ctx, "look at it", webRequest{method: "HEAD", to: u.to})
	if err == nil {
		return exists(u.String())
	}
	return u.fail("look at it", unlessMissing(err))
}

func (u *httpUpload) String() string { return u.to.String() }

// Check implements [Checker].
func (u *httpUpload) Check(ctx context.Context, f File) error {
	// A server that makes sparse files needs room for the data only.
	need := f.Size
	if u.can.Ranges {
		need = f.Data
	}
	p, err := u.client.properties(ctx, u.to.folder())
	if err != nil {
		return u.fail("ask for free space", err)
	}
	if p.free >= 0 && need > p.free {
		return noSpace(u.String(), need, p.free)
	}
	return nil
}

// fail says of which destination an error is.
func (u *httpUpload) fail(what string, err error) error { return webFail(u.String(), what, err) }
