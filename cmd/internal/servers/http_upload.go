package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

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

	state   httpState // Part is empty until Send has begun
	resumed bool      // state is that of an earlier run
	src     Source    // nil until Send
	sent    bool      // all has arrived
	gone    bool      // the part is not there any more
}

// httpState is what the next run needs.
type httpState struct {
	// Part is the name of the hidden file.
	Part string
	// Size of the whole in bytes.
	Size int64
	// Offset before which all has arrived, with Ranges.
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
	client, err := newWebClient(to, o, false)
	if err != nil {
		return nil, err
	}
	u := &httpUpload{client: client, to: to, force: o.Force}
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
		if err := json.Unmarshal(o.Resume, &u.state); err != nil || !strings.HasPrefix(u.state.Part, ".") || strings.Contains(u.state.Part, "/") {
			return fmt.Errorf("%s: what an earlier run has kept: not understood: %w", u, err)
		}
		u.resumed, u.can = true, u.state.httpAbilities
		return nil
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
		p, _ := u.client.properties(ctx, u.to)
		return p.collection, nil
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
func (u *httpUpload) size(ctx context.Context, a webAddress) (int64, error) {
	resp, err := u.client.do(ctx, "look at it", webRequest{method: "HEAD", to: a})
	if hasStatus(err, http.StatusNotFound, http.StatusGone) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	if resp.ContentLength >= 0 {
		return resp.ContentLength, nil
	}
	// Apache does not tell it of an empty file, nor of one that it would pack.
	r := webRequest{method: "GET", to: a, also: []int{http.StatusRequestedRangeNotSatisfiable}}
	r.header = map[string]string{"Range": "bytes=0-0", "Accept-Encoding": "identity"}
	if resp, err = u.client.send(ctx, r); err != nil {
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
	p, ok := u.client.properties(ctx, u.to.folder())
	if ok && p.free >= 0 && need > p.free {
		return noSpace(u.String(), need, p.free)
	}
	return nil
}

// Send implements [Upload].
func (u *httpUpload) Send(ctx context.Context, src Source, log Log) error {
	u.client.retry.say = log.Say
	u.src = src
	if u.direct {
		return u.fail("send", u.sendDirect(ctx, log))
	}
	if err := u.begin(ctx, log); err != nil {
		return u.fail("begin", err)
	}
	send := u.sendWhole
	if u.can.Ranges {
		send = u.sendPieces
	}
	if err := send(ctx, log); err != nil {
		return u.fail("send", err)
	}
	size, err := u.size(ctx, u.part())
	if err == nil && size != src.Size() {
		err = lasting{fmt.Errorf("the server has %d bytes of %d that were sent", size, src.Size())}
	}
	u.sent = err == nil
	return u.fail("look at what has arrived", err)
}

// part is the hidden file.
func (u *httpUpload) part() webAddress { return u.to.sibling(u.state.Part) }

// begin finds what an earlier run has sent, or chooses a new part.
func (u *httpUpload) begin(ctx context.Context, log Log) error {
	if u.resumed {
		size, err := u.size(ctx, u.part())
		if err != nil {
			return err
		}
		if u.can.Ranges && size == u.src.Size() && u.state.Size == size && u.state.Offset <= size {
			kept, err := dataBefore(u.src, u.state.Offset)
			if err != nil {
				return err
			}
			log.Kept(kept)
			return nil
		}
		switch {
		case !u.can.Ranges:
			log.Say("this server can't go on with a partial file: beginning anew")
		default:
			log.Say("what an earlier run has sent is not there any more: beginning anew")
		}
		if err := u.remove(ctx); err != nil {
			log.Say("%v", err)
		}
	}
	u.state = httpState{Part: hiddenName(u.to.name()), Size: u.src.Size(), httpAbilities: u.can}
	u.gone = false
	log.Keep(u.state)
	return nil
}

// sendWhole sends the file in one request; holes are zeros.
func (u *httpUpload) sendWhole(ctx context.Context, log Log) error {
	return u.put(ctx, u.part(), piece{0, u.src.Size()}, nil, log)
}

// sendPieces makes a file of the right size, and writes the data into it, one
// piece after the other: there are servers that write a new file each time.
func (u *httpUpload) sendPieces(ctx context.Context, log Log) error {
	size := u.src.Size()
	if size == 0 {
		return u.sendWhole(ctx, log)
	}
	if u.state.Offset == 0 {
		end := literalPut(u.part(), "\x00", contentRange(piece{size - 1, size}))
		if _, err := u.client.do(ctx, "set its size", end); err != nil {
			return err
		}
	}
	return eachPiece(u.src, u.state.Offset, httpPiece, smallHole, func(p piece) error {
		if err := u.put(ctx, u.part(), p, map[string]string{"Content-Range": contentRange(p)}, log); err != nil {
			return err
		}
		u.state.Offset = p.end
		log.Keep(u.state)
		return nil
	})
}

// contentRange is the header of that name for a part of a file whose size is
// not told (RFC 9110, section 14.4).
func contentRange(p piece) string { return fmt.Sprintf("bytes %d-%d/*", p.start, p.end-1) }

// put sends a piece, and tries again what may pass.
func (u *httpUpload) put(ctx context.Context, to webAddress, p piece, header map[string]string, log Log) error {
	return u.client.retry.do(ctx, "send", func() error { return u.putOnce(ctx, to, p, header, log) })
}

// putOnce sends a piece.
func (u *httpUpload) putOnce(ctx context.Context, to webAddress, p piece, header map[string]string, log Log) error {
	s := &sending{src: u.src, piece: p, log: log}
	r := webRequest{
		method: "PUT", to: to, body: s.next, length: p.end - p.start, limit: sizeLimit(p.end - p.start),
		header: map[string]string{"Content-Type": "application/octet-stream"},
	}
	for name, value := range header {
		r.header[name] = value
	}
	if r.length > httpPiece {
		// Who refuses it should do so before it is sent.
		r.header["Expect"] = "100-continue"
	}
	resp, err := u.client.send(ctx, r)
	if err == nil {
		drain(resp)
		if !s.complete() {
			err = passing{errors.New("the server has answered before it had everything")}
		}
	}
	if err != nil {
		s.failed()
	}
	return err
}

// fail says of which destination an error is.
func (u *httpUpload) fail(what string, err error) error { return webFail(u.String(), what, err) }

// webFail is [serverError] for an error of a [webClient], whose hint stays.
func webFail(where, what string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	e, ok := errors.AsType[*cli.Error](err)
	if !ok {
		return serverError(where, what, err)
	}
	if strings.HasPrefix(err.Error(), where+": ") {
		return err
	}
	return &cli.Error{Err: fmt.Errorf("%s: %s: %w", where, what, err), Hint: e.Hint, Code: e.Code}
}
