package oci

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

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

// hasBlob says whether the repository has a blob of that digest and size.
func (c *registry) hasBlob(ctx context.Context, d descriptor) (bool, error) {
	resp, err := c.do(ctx, request{method: http.MethodHead, url: c.ref.url("blobs/" + d.Digest), want: []int{http.StatusOK}})
	if web.HasStatus(err, http.StatusNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	return resp.ContentLength < 0 || resp.ContentLength == d.Size, nil
}

// beginBlob begins the upload of a blob, and returns where it is and the
// smallest chunk in bytes that the registry takes.
func (c *registry) beginBlob(ctx context.Context) (at *url.URL, smallest int64, err error) {
	resp, err := c.do(ctx, request{
		method: http.MethodPost, url: c.ref.url("blobs/uploads/"),
		body: func() io.ReadCloser { return http.NoBody }, want: []int{http.StatusAccepted},
	})
	if err != nil {
		return nil, 0, err
	}
	web.Drain(resp)
	smallest, _ = strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64)
	at, err = c.location(resp)
	return at, smallest, err
}

// blobStatus returns how many bytes have arrived at an upload, and where it is
// now.
func (c *registry) blobStatus(ctx context.Context, at *url.URL) (off int64, now *url.URL, err error) {
	resp, err := c.do(ctx, request{method: http.MethodGet, url: at, want: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}})
	if err != nil {
		return 0, nil, err
	}
	web.Drain(resp)
	if resp.Header.Get("Location") != "" {
		if at, err = c.location(resp); err != nil {
			return 0, nil, err
		}
	}
	off, _ = arrivedBytes(resp)
	return off, at, nil
}

// arrivedBytes returns how many bytes an answer says have arrived. "0-0" is
// what registries say of none, and nobody sends a single one.
func arrivedBytes(resp *http.Response) (n int64, ok bool) {
	text := strings.TrimPrefix(resp.Header.Get("Range"), "bytes=")
	first, last, _ := strings.Cut(text, "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if first != "0" || err != nil || n < 0 || n == 1<<63-1 {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return n + 1, true
}

// finishBlob says that all of a blob has arrived; the registry computes its
// digest and compares it, and may copy the blob, which takes long. A body of size
// bytes may hold what is missing.
func (c *registry) finishBlob(ctx context.Context, at *url.URL, d descriptor, body func() io.ReadCloser, size int64) error {
	u := *at
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += "digest=" + url.QueryEscape(d.Digest)
	if body == nil {
		body = func() io.ReadCloser { return http.NoBody }
	}
	resp, err := c.do(ctx, request{
		method: http.MethodPut, url: &u, header: map[string]string{"Content-Type": "application/octet-stream"},
		body: body, size: size, patience: web.SizeLimit(d.Size), want: []int{http.StatusCreated, http.StatusNoContent},
	})
	if err == nil {
		web.Drain(resp)
	}
	return err
}

// pushBlob brings a small blob to the repository.
func (c *registry) pushBlob(ctx context.Context, blob []byte, d descriptor) error {
	if has, err := c.hasBlob(ctx, d); has || err != nil {
		return err
	}
	at, _, err := c.beginBlob(ctx)
	if err != nil {
		return err
	}
	return c.finishBlob(ctx, at, d, func() io.ReadCloser { return io.NopCloser(bytes.NewReader(blob)) }, d.Size)
}

// cancelBlob removes an unfinished upload. Those that a registry does not find,
// or can't remove, it forgets by itself after some days.
func (c *registry) cancelBlob(ctx context.Context, at *url.URL) error {
	resp, err := c.do(ctx, request{method: http.MethodDelete, url: at, want: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}})
	if web.HasStatus(err, http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotImplemented) {
		return nil
	}
	if err == nil {
		web.Drain(resp)
	}
	return err
}
