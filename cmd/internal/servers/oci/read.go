package oci

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"flatimg/cmd/internal/servers/web"
)

// blob returns the bytes [off, end) of a blob, or more; an end of -1 is its own.
func (c *registry) blob(ctx context.Context, d descriptor, off, end int64) (io.ReadCloser, error) {
	r := request{method: http.MethodGet, url: c.ref.url("blobs/" + d.Digest), want: []int{http.StatusOK}}
	if off > 0 || end >= 0 {
		last := ""
		if end >= 0 {
			last = fmt.Sprint(end - 1)
		}
		r.header = map[string]string{"Range": fmt.Sprintf("bytes=%d-%s", off, last)}
		r.want = append(r.want, http.StatusPartialContent)
	}
	resp, err := web.WithIdleBody(ctx, func(ctx context.Context) (*http.Response, error) { return c.do(ctx, r) })
	if err != nil {
		return nil, err
	}
	if err := web.SkipTo(resp, off); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp.Body, nil
}
