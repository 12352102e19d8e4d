package webdav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// download is a file that is fetched by GET.
type download struct {
	client *web.Client
	from   web.Address
	lanes  int
	// at is where from was redirected to; nil: nowhere. A server may send each
	// request to another mirror, which has another tag for the same.
	at *url.URL

	first   answer // of the file when it was opened
	version string // empty: all must come from one answer

	mu sync.Mutex
	// stream is the one answer, of a file without a version, as far as it was
	// read; nil: none.
	stream *stream
}

var _ = (servers.Download)((*download)(nil))
var _ = (servers.Summer)((*download)(nil))

// OpenSource opens the file that a URL names for fetching.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	from, err := web.ParseAddress(src)
	if err != nil {
		return nil, err
	}
	if from.Name() == "" {
		return nil, transfer.Usage(fmt.Errorf("%s: names a folder", from), "give the URL of a file")
	}
	client, err := web.NewClient(ctx, from, o, true)
	if err != nil {
		return nil, err
	}
	d := &download{client: client, from: from, lanes: o.Connections}
	if d.lanes <= 0 {
		d.lanes = web.DefaultLanes
	}
	if err := d.look(ctx); err != nil {
		client.Close()
		return nil, d.fail("look at it", err)
	}
	return d, nil
}

// look asks for the first byte: not all servers answer HEAD, and none tells
// otherwise whether it can send a part.
func (d *download) look(ctx context.Context) error {
	err := d.ask(ctx, &d.first)
	d.version = d.first.version()
	return err
}

func (d *download) ask(ctx context.Context, a *answer) error {
	return d.client.Retry.Own().Do(ctx, "look at it", func() error {
		r := d.get(web.Piece{Start: 0, End: 1})
		r.Also = []int{http.StatusRequestedRangeNotSatisfiable}
		resp, err := d.send(ctx, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if a == &d.first && resp.Request.URL.String() != d.from.URL.String() {
			d.at = resp.Request.URL
		}
		if *a, err = readAnswer(resp); a.ranges {
			web.Drain(resp) // else it is the whole file
		}
		return err
	})
}

// confirm fails when the file is not that of the answer a any more. Apache looks
// at a file before it opens it: one that takes its place in between is sent with
// the size and the tag of the old one.
func (d *download) confirm(ctx context.Context, a answer) error {
	var now answer
	if err := d.ask(ctx, &now); err != nil {
		return transfer.Lasting(err) // what has arrived would not be asked for again
	}
	if now.size != d.first.size || !now.sameAs(a) {
		return d.changed()
	}
	return nil
}

// get is the request for a part; an end of -1 is that of the file.
func (d *download) get(p web.Piece) web.Request {
	last := ""
	if p.End >= 0 {
		last = fmt.Sprint(p.End - 1)
	}
	return web.Request{Method: "GET", To: d.from, Limit: web.AnswerTimeout, Header: map[string]string{
		"Range": fmt.Sprintf("bytes=%d-%s", p.Start, last), "Accept-Encoding": "identity",
	}}
}

// send makes a request where the first one was redirected to, unless that is
// refused by now: such a URL may be signed for some minutes.
func (d *download) send(ctx context.Context, r web.Request) (*http.Response, error) {
	if d.at != nil {
		direct := r
		direct.To.URL = d.at
		direct.Foreign = d.at.Scheme != d.from.URL.Scheme || d.at.Host != d.from.URL.Host
		resp, err := d.client.Send(ctx, direct)
		if !web.HasStatus(err, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone) {
			return resp, err
		}
	}
	return d.client.Send(ctx, r)
}

func (d *download) String() string { return d.from.String() }

// Size implements [servers.Download].
func (d *download) Size() int64 { return d.first.size }

// Version implements [servers.Download].
func (d *download) Version() string {
	if !d.first.ranges {
		return "" // nobody can go on
	}
	return d.version
}

// Lanes implements [servers.Download].
func (d *download) Lanes() int {
	if d.Version() == "" {
		return 1
	}
	return d.lanes
}

// Close implements [servers.Download].
func (d *download) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropStream()
	d.client.Close()
	return nil
}

// Read implements [servers.Download].
func (d *download) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 && d.first.size >= 0 {
		length = max(0, d.first.size-off)
	}
	if length == 0 {
		return nil
	}
	if d.Version() == "" {
		return d.fail("read", d.readStream(ctx, w, off, length))
	}
	return d.fail("read", d.readPart(ctx, w, off, length))
}

// readPart fetches a part of the version that was opened.
func (d *download) readPart(ctx context.Context, w io.Writer, off, length int64) error {
	r := d.get(web.Piece{Start: off, End: off + length})
	r.Header["If-Range"] = d.first.validator()
	resp, err := d.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	a, err := readAnswer(resp)
	switch {
	case err != nil:
		return err
	case !a.sameAs(d.first):
		return d.changed()
	case a.start != off:
		return transfer.Lasting(fmt.Errorf("asked for offset %d, the server sends %d", off, a.start))
	}
	if err := transfer.CopyExactly(w, resp.Body, length); err != nil {
		return err
	}
	return d.confirm(ctx, a)
}

func (d *download) changed() error {
	return transfer.Lasting(&cli.Error{
		Err:  errors.New("the file has changed while it was fetched"),
		Hint: "fetch it again, from the start",
		Code: cli.ExitServer,
	})
}

// Checksum implements [servers.Summer].
func (d *download) Checksum(ctx context.Context) (servers.Checksum, error) {
	sum, err := d.client.Checksum(ctx, d.from, d.first.size, "")
	if err != nil {
		return servers.Checksum{}, d.fail("ask for its checksum", err)
	}
	if sum == nil {
		return servers.Checksum{}, transfer.NoVerification(d.String(), "the server tells no checksum")
	}
	return *sum, nil
}

func (d *download) fail(what string, err error) error {
	if web.HasStatus(err, http.StatusNotFound, http.StatusGone) {
		err = &cli.Error{Err: err, Hint: "is there such a file? check the URL", Code: cli.ExitServer}
	}
	return web.Fail(d.String(), what, err)
}
