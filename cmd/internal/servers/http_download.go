package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"flatimg/cmd/internal/cli"
)

// webLanes is how many requests at a time are of use: one line is seldom filled
// by one connection.
const webLanes = 4

// httpDownload is a file that is fetched by GET.
type httpDownload struct {
	client *webClient
	from   webAddress
	lanes  int
	// at is where from was redirected to; nil: nowhere. A server may send each
	// request to another mirror, which has another tag for the same.
	at *url.URL

	first   webAnswer // of the file when it was opened
	version string    // empty: all must come from one answer

	mu sync.Mutex
	// stream is the one answer, of a file without a version, as far as it was
	// read; nil: none.
	stream *webStream
}

var _ = (Download)((*httpDownload)(nil))
var _ = (Summer)((*httpDownload)(nil))

func openHTTPSource(ctx context.Context, src string, o Options) (Download, error) {
	from, err := parseWeb(src)
	if err != nil {
		return nil, err
	}
	if from.name() == "" {
		return nil, usage(fmt.Errorf("%s: names a folder", from), "give the URL of a file")
	}
	client, err := newWebClient(ctx, from, o, true)
	if err != nil {
		return nil, err
	}
	d := &httpDownload{client: client, from: from, lanes: o.Connections}
	if d.lanes <= 0 {
		d.lanes = webLanes
	}
	if err := d.look(ctx); err != nil {
		client.close()
		return nil, d.fail("look at it", err)
	}
	return d, nil
}

// look asks for the first byte: not all servers answer HEAD, and none tells
// otherwise whether it can send a part.
func (d *httpDownload) look(ctx context.Context) error {
	err := d.ask(ctx, &d.first)
	d.version = d.first.version()
	return err
}

func (d *httpDownload) ask(ctx context.Context, a *webAnswer) error {
	return d.client.retry.own().do(ctx, "look at it", func() error {
		r := d.get(piece{0, 1})
		r.also = []int{http.StatusRequestedRangeNotSatisfiable}
		resp, err := d.send(ctx, r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if a == &d.first && resp.Request.URL.String() != d.from.url.String() {
			d.at = resp.Request.URL
		}
		if *a, err = readAnswer(resp); a.ranges {
			drain(resp) // else it is the whole file
		}
		return err
	})
}

// confirm fails when the file is not that of the answer a any more. Apache looks
// at a file before it opens it: one that takes its place in between is sent with
// the size and the tag of the old one.
func (d *httpDownload) confirm(ctx context.Context, a webAnswer) error {
	var now webAnswer
	if err := d.ask(ctx, &now); err != nil {
		return lasting{err} // what has arrived would not be asked for again
	}
	if now.size != d.first.size || !now.sameAs(a) {
		return d.changed()
	}
	return nil
}

// get is the request for a part; an end of -1 is that of the file.
func (d *httpDownload) get(p piece) webRequest {
	last := ""
	if p.end >= 0 {
		last = fmt.Sprint(p.end - 1)
	}
	return webRequest{method: "GET", to: d.from, limit: answerTimeout, header: map[string]string{
		"Range": fmt.Sprintf("bytes=%d-%s", p.start, last), "Accept-Encoding": "identity",
	}}
}

// send makes a request where the first one was redirected to, unless that is
// refused by now: such a URL may be signed for some minutes.
func (d *httpDownload) send(ctx context.Context, r webRequest) (*http.Response, error) {
	if d.at != nil {
		direct := r
		direct.to.url = d.at
		direct.foreign = d.at.Scheme != d.from.url.Scheme || d.at.Host != d.from.url.Host
		resp, err := d.client.send(ctx, direct)
		if !hasStatus(err, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone) {
			return resp, err
		}
	}
	return d.client.send(ctx, r)
}

func (d *httpDownload) String() string { return d.from.String() }

// Size implements [Download].
func (d *httpDownload) Size() int64 { return d.first.size }

// Version implements [Download].
func (d *httpDownload) Version() string {
	if !d.first.ranges {
		return "" // nobody can go on
	}
	return d.version
}

// Lanes implements [Download].
func (d *httpDownload) Lanes() int {
	if d.Version() == "" {
		return 1
	}
	return d.lanes
}

// Close implements [Download].
func (d *httpDownload) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dropStream()
	d.client.close()
	return nil
}

// Read implements [Download].
func (d *httpDownload) Read(ctx context.Context, w io.Writer, off, length int64) error {
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
func (d *httpDownload) readPart(ctx context.Context, w io.Writer, off, length int64) error {
	r := d.get(piece{off, off + length})
	r.header["If-Range"] = d.first.validator()
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
		return lasting{fmt.Errorf("asked for offset %d, the server sends %d", off, a.start)}
	}
	if err := copyExactly(w, resp.Body, length); err != nil {
		return err
	}
	return d.confirm(ctx, a)
}

func (d *httpDownload) changed() error {
	return lasting{&cli.Error{
		Err:  errors.New("the file has changed while it was fetched"),
		Hint: "fetch it again, from the start",
		Code: cli.ExitServer,
	}}
}

// Checksum implements [Summer].
func (d *httpDownload) Checksum(ctx context.Context) (Checksum, error) {
	sum, err := d.client.checksum(ctx, d.from, d.first.size, "")
	if err != nil {
		return Checksum{}, d.fail("ask for its checksum", err)
	}
	if sum == nil {
		return Checksum{}, noVerification(d.String(), "the server tells no checksum")
	}
	return *sum, nil
}

func (d *httpDownload) fail(what string, err error) error {
	if hasStatus(err, http.StatusNotFound, http.StatusGone) {
		err = &cli.Error{Err: err, Hint: "is there such a file? check the URL", Code: cli.ExitServer}
	}
	return webFail(d.String(), what, err)
}
