package servers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// parseContentRange parses the header of that name (RFC 9110, section 14.4) of
// an answer with the bytes [start, end) of size; -1: not told.
func parseContentRange(text string) (start, end, size int64, err error) {
	fail := fmt.Errorf("the server's Content-Range is not understood: %.80q", text)
	unit, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	bounds, total, ok := strings.Cut(rest, "/")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return 0, 0, 0, fail
	}
	size = -1
	if total != "*" {
		if size, ok = parseOffset(total); !ok {
			return 0, 0, 0, fail
		}
	}
	first, last, _ := strings.Cut(bounds, "-")
	start, ok1 := parseOffset(first)
	end, ok2 := parseOffset(last)
	if !ok1 || !ok2 || start > end || size >= 0 && end >= size {
		return 0, 0, 0, fail
	}
	return start, end + 1, size, nil
}

// parseOffset parses digits and nothing else.
func parseOffset(text string) (int64, bool) {
	n, err := strconv.ParseUint(text, 10, 62)
	return int64(n), err == nil
}

// readRange writes the bytes [off, off+length) of a file to w.
func (c *webClient) readRange(ctx context.Context, a webAddress, w io.Writer, off, length int64) error {
	if length == 0 {
		return nil
	}
	resp, err := c.send(ctx, webRequest{method: "GET", to: a, header: map[string]string{
		"Range": fmt.Sprintf("bytes=%d-%d", off, off+length-1), "Accept-Encoding": "identity",
	}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := skipTo(resp, off); err != nil {
		return err
	}
	return copyExactly(w, resp.Body, length)
}

// skipTo reads an answer up to what lies at off of the file: a server may answer
// with the whole.
func skipTo(resp *http.Response, off int64) error {
	if resp.Header.Get("Content-Encoding") != "" {
		return lasting{fmt.Errorf("the server has packed the file (%s)", resp.Header.Get("Content-Encoding"))}
	}
	if resp.StatusCode == http.StatusPartialContent {
		start, _, _, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err == nil && start != off {
			err = fmt.Errorf("asked for offset %d, the server sends %d", off, start)
		}
		if err != nil {
			return lasting{err}
		}
		return nil
	}
	_, err := io.CopyN(io.Discard, resp.Body, off)
	return err
}
