package webdav

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// abilities are what a server can do beside PUT.
type abilities struct {
	// Ranges: a PUT with Content-Range writes in the middle of a file, and what
	// was never written reads as zeros. It is Apache's; RFC 9110, section 14.5,
	// leaves it to each server, and says that some replace the file.
	Ranges bool
	// Move: MOVE of WebDAV (RFC 4918, section 9.9).
	Move bool
}

// probe finds out what the server can do with two tiny hidden files beside the
// target, which are gone afterwards. It fails when nothing can be written there.
func (u *upload) probe(ctx context.Context) (can abilities, err error) {
	first, second := u.to.Sibling(transfer.HiddenName(u.to.Name())), u.to.Sibling(transfer.HiddenName(u.to.Name()))
	// A file that is not there first: who does not know MOVE may not know
	// DELETE either.
	_, err = u.client.Do(ctx, "probe", move(first, second, false))
	if !web.HasStatus(err, http.StatusNotFound, http.StatusConflict) && err != nil {
		return can, unlessRefused(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), web.CloseLimit)
		defer cancel()
		for _, a := range []web.Address{first, second} {
			if resp, err := u.client.Send(ctx, web.Request{Method: "DELETE", To: a}); err == nil {
				web.Drain(resp)
			}
		}
	}()
	if err := u.firstPut(ctx, first); err != nil {
		return can, u.explainPut(err)
	}
	if can.Ranges, err = u.probeRanges(ctx, first); err != nil {
		return can, err
	}
	can.Move, err = u.probeMove(ctx, first, second)
	return can, err
}

// firstPut makes a file that holds "a".
func (u *upload) firstPut(ctx context.Context, file web.Address) error {
	return u.client.Retry.Own().Do(ctx, "probe", func() error {
		resp, err := u.client.Send(ctx, literalPut(file, "a", ""))
		if err == nil {
			web.Drain(resp)
		}
		return putError(err)
	})
}

// literalPut is the request that writes text, at a Content-Range unless that is
// empty.
func literalPut(to web.Address, text, contentRange string) web.Request {
	r := web.Request{
		Method: "PUT", To: to, Header: map[string]string{"Content-Type": "application/octet-stream"},
		Body: func() io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }, Length: int64(len(text)),
	}
	if contentRange != "" {
		r.Header["Content-Range"] = contentRange
	}
	return r
}

// probeRanges writes behind the end of the file, which holds "a", and then into
// the gap.
func (u *upload) probeRanges(ctx context.Context, file web.Address) (bool, error) {
	for _, r := range []web.Request{literalPut(file, "d", "bytes 7-7/*"), literalPut(file, "bc", "bytes 1-2/*")} {
		if _, err := u.client.Do(ctx, "probe", r); err != nil {
			return false, unlessRefused(err)
		}
	}
	resp, err := u.client.Send(ctx, web.Request{Method: "GET", To: file})
	if err != nil {
		return false, unlessRefused(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	return bytes.Equal(got, []byte("abc\x00\x00\x00\x00d")), err
}

func (u *upload) probeMove(ctx context.Context, from, to web.Address) (bool, error) {
	if _, err := u.client.Do(ctx, "probe", move(from, to, false)); err != nil {
		return false, unlessRefused(err)
	}
	// Some answer what they don't know as if it were a GET.
	if _, err := u.client.Do(ctx, "probe", web.Request{Method: "HEAD", To: to}); err != nil {
		return false, unlessRefused(err)
	}
	return true, nil
}

// move is the request that renames a file.
func move(from, to web.Address, overwrite bool) web.Request {
	header := map[string]string{"Destination": to.URL.String(), "Overwrite": "F"}
	if overwrite {
		header["Overwrite"] = "T"
	}
	return web.Request{Method: "MOVE", To: from, Header: header}
}

// unlessRefused is nil for an answer that says that the server can't, and not
// that it has no time.
func unlessRefused(err error) error {
	if !transfer.Is[*web.Error](err) || web.HasStatus(err, http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout) {
		return err
	}
	return nil
}

// explainPut adds to the error of the first PUT what may have caused it.
func (u *upload) explainPut(err error) error {
	hint := ""
	switch {
	case web.HasStatus(err, http.StatusNotFound, http.StatusConflict):
		hint = fmt.Sprintf("is there no folder %s on the server? make it first", u.to.Folder())
	case web.HasStatus(err, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadRequest):
		hint = "the server must take uploads by PUT there: WebDAV, dav_methods of nginx, Dav of Apache"
	}
	if e, ok := errors.AsType[*cli.Error](err); ok || hint == "" {
		if ok && e.Hint == "" {
			e.Hint = hint
		}
		return u.fail("upload", err)
	}
	return u.fail("upload", &cli.Error{Err: err, Hint: hint, Code: cli.ExitServer})
}
