package servers

import (
	"context"
	"fmt"
	"io"
	"net/http"
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
	if err := skipTo(resp, off); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}
