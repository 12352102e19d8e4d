package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"flatimg/cmd/internal/servers/transfer"
)

// ParseContentRange parses the header of that name (RFC 9110, section 14.4) of
// an answer with the bytes [start, end) of size; -1: not told.
func ParseContentRange(text string) (start, end, size int64, err error) {
	fail := fmt.Errorf("the server's Content-Range is not understood: %.80q", text)
	unit, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	bounds, total, ok := strings.Cut(rest, "/")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return 0, 0, 0, fail
	}
	size = -1
	if total != "*" {
		if size, ok = ParseOffset(total); !ok {
			return 0, 0, 0, fail
		}
	}
	first, last, _ := strings.Cut(bounds, "-")
	start, ok1 := ParseOffset(first)
	end, ok2 := ParseOffset(last)
	if !ok1 || !ok2 || start > end || size >= 0 && end >= size {
		return 0, 0, 0, fail
	}
	return start, end + 1, size, nil
}

// ContentRange is the header of that name for a part of a file whose size is
// not told (RFC 9110, section 14.4).
func ContentRange(p Piece) string { return fmt.Sprintf("bytes %d-%d/*", p.Start, p.End-1) }

// ParseOffset parses digits and nothing else.
func ParseOffset(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 62)
	return int64(n), err == nil
}

// ReadRange writes the bytes [off, off+length) of a file to w.
func (c *Client) ReadRange(ctx context.Context, a Address, w io.Writer, off, length int64) error {
	if length == 0 {
		return nil
	}
	resp, err := c.Send(ctx, Request{Method: "GET", To: a, Header: map[string]string{
		"Range": fmt.Sprintf("bytes=%d-%d", off, off+length-1), "Accept-Encoding": "identity",
	}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := SkipTo(resp, off); err != nil {
		return err
	}
	return transfer.CopyExactly(w, resp.Body, length)
}

// SkipTo reads an answer up to what lies at off of the file: a server may answer
// with the whole.
func SkipTo(resp *http.Response, off int64) error {
	if resp.Header.Get("Content-Encoding") != "" {
		return transfer.Lasting(fmt.Errorf("the server has packed the file (%s)", resp.Header.Get("Content-Encoding")))
	}
	if resp.StatusCode == http.StatusPartialContent {
		start, _, _, err := ParseContentRange(resp.Header.Get("Content-Range"))
		if err == nil && start != off {
			err = fmt.Errorf("asked for offset %d, the server sends %d", off, start)
		}
		if err != nil {
			return transfer.Lasting(err)
		}
		return nil
	}
	_, err := io.CopyN(io.Discard, resp.Body, off)
	return err
}

// ReadAll is [Client.ReadRange] that goes on after what may pass.
func (c *Client) ReadAll(ctx context.Context, a Address, w io.Writer, off, length int64) error {
	return c.Retry.Own().ReadAll(ctx, "read", w, off, length, func(w io.Writer, off, length int64) error {
		return c.ReadRange(ctx, a, w, off, length)
	})
}
