package servers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// blob returns the bytes [off, end) of a blob, or more; an end of -1 is its own.
func (c *ociClient) blob(ctx context.Context, d descriptor, off, end int64) (io.ReadCloser, error) {
	r := ociRequest{method: http.MethodGet, url: c.ref.url("blobs/" + d.Digest), want: []int{http.StatusOK}}
	if off > 0 || end >= 0 {
		last := ""
		if end >= 0 {
			last = fmt.Sprint(end - 1)
		}
		r.header = map[string]string{"Range": fmt.Sprintf("bytes=%d-%s", off, last)}
		r.want = append(r.want, http.StatusPartialContent)
	}
	resp, err := withIdleBody(ctx, func(ctx context.Context) (*http.Response, error) { return c.do(ctx, r) })
	if err != nil {
		return nil, err
	}
	if err := seekBody(resp, off); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}

// seekBody makes the body of an answer begin at off: it does, unless the server
// takes no ranges (RFC 9110, section 14).
func seekBody(resp *http.Response, off int64) error {
	if resp.StatusCode == http.StatusPartialContent {
		got := resp.Header.Get("Content-Range")
		if !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", off)) {
			return lasting{fmt.Errorf("asked for the bytes from %d on, got %q", off, got)}
		}
		return nil
	}
	_, err := io.CopyN(io.Discard, resp.Body, off)
	return err
}
