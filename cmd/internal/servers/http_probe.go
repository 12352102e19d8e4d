package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"flatimg/cmd/internal/cli"
)

// httpAbilities are what a server can do beside PUT.
type httpAbilities struct {
	// Ranges: a PUT with Content-Range writes in the middle of a file, and what
	// was never written reads as zeros. It is Apache's; RFC 9110, section 14.5,
	// leaves it to each server, and says that some replace the file.
	Ranges bool
	// Move: MOVE of WebDAV (RFC 4918, section 9.9).
	Move bool
}

// probe finds out what the server can do with two tiny hidden files beside the
// target, which are gone afterwards. It fails when nothing can be written there.
func (u *httpUpload) probe(ctx context.Context) (can httpAbilities, err error) {
	first, second := u.to.sibling(hiddenName(u.to.name())), u.to.sibling(hiddenName(u.to.name()))
	// A file that is not there first: who does not know MOVE may not know
	// DELETE either.
	_, err = u.client.do(ctx, "probe", move(first, second, false))
	if !hasStatus(err, http.StatusNotFound, http.StatusConflict) && err != nil {
		return can, unlessRefused(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
		defer cancel()
		for _, a := range []webAddress{first, second} {
			if resp, err := u.client.send(ctx, webRequest{method: "DELETE", to: a}); err == nil {
				drain(resp)
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
func (u *httpUpload) firstPut(ctx context.Context, file webAddress) error {
	return u.client.retry.own().do(ctx, "probe", func() error {
		resp, err := u.client.send(ctx, literalPut(file, "a", ""))
		if err == nil {
			drain(resp)
		}
		return putError(err)
	})
}

// literalPut is the request that writes text, at a Content-Range unless that is
// empty.
func literalPut(to webAddress, text, contentRange string) webRequest {
	r := webRequest{
		method: "PUT", to: to, header: map[string]string{"Content-Type": "application/octet-stream"},
		body: func() io.ReadCloser { return io.NopCloser(strings.NewReader(text)) }, length: int64(len(text)),
	}
	if contentRange != "" {
		r.header["Content-Range"] = contentRange
	}
	return r
}

// probeRanges writes behind the end of the file, which holds "a", and then into
// the gap.
func (u *httpUpload) probeRanges(ctx context.Context, file webAddress) (bool, error) {
	for _, r := range []webRequest{literalPut(file, "d", "bytes 7-7/*"), literalPut(file, "bc", "bytes 1-2/*")} {
		if _, err := u.client.do(ctx, "probe", r); err != nil {
			return false, unlessRefused(err)
		}
	}
	resp, err := u.client.send(ctx, webRequest{method: "GET", to: file})
	if err != nil {
		return false, unlessRefused(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	return bytes.Equal(got, []byte("abc\x00\x00\x00\x00d")), err
}

func (u *httpUpload) probeMove(ctx context.Context, from, to webAddress) (bool, error) {
	if _, err := u.client.do(ctx, "probe", move(from, to, false)); err != nil {
		return false, unlessRefused(err)
	}
	// Some answer what they don't know as if it were a GET.
	if _, err := u.client.do(ctx, "probe", webRequest{method: "HEAD", to: to}); err != nil {
		return false, unlessRefused(err)
	}
	return true, nil
}

// move is the request that renames a file.
func move(from, to webAddress, overwrite bool) webRequest {
	header := map[string]string{"Destination": to.url.String(), "Overwrite": "F"}
	if overwrite {
		header["Overwrite"] = "T"
	}
	return webRequest{method: "MOVE", to: from, header: header}
}

// unlessRefused is nil for an answer that says that the server can't, and not
// that it has no time.
func unlessRefused(err error) error {
	if !is[*httpError](err) || hasStatus(err, http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout) {
		return err
	}
	return nil
}

// explainPut adds to the error of the first PUT what may have caused it.
func (u *httpUpload) explainPut(err error) error {
	hint := ""
	switch {
	case hasStatus(err, http.StatusNotFound, http.StatusConflict):
		hint = fmt.Sprintf("is there no folder %s on the server? make it first", u.to.folder())
	case hasStatus(err, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadRequest):
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
