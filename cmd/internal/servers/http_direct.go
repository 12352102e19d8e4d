package servers

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
)

// sample is how many bytes at the begin and at the end of a file are compared
// to know it again.
const sample = 64 << 10

// sendDirect sends the file to its final name.
func (u *httpUpload) sendDirect(ctx context.Context, log Log) error {
	header := map[string]string{}
	if !u.force {
		header["If-None-Match"] = "*" // RFC 9110, section 13.1.2
	}
	all := piece{0, u.src.Size()}
	asked := false
	err := u.client.retry.do(ctx, "send", func() error {
		if asked {
			// Only the answer may have been lost.
			size, tag, ours := u.ours(ctx)
			switch {
			case ours && size == all.end:
				data, err := dataSize(u.src)
				log.Sent(data)
				return err
			case ours && !u.force:
				if err := u.removeTarget(ctx, tag); err != nil {
					return err
				}
			}
		}
		asked = true
		return u.putOnce(ctx, u.to, all, header, log)
	})
	if hasStatus(err, http.StatusPreconditionFailed) {
		u.sent = true // nothing of ours is there
		return exists(u.String())
	}
	if err != nil {
		return err
	}
	size, err := u.size(ctx, u.to)
	if err == nil && size != all.end {
		err = lasting{fmt.Errorf("the server has %d bytes of %d that were sent", size, all.end)}
	}
	u.sent = err == nil
	return err
}

// removePartial removes what a failed upload has left at the final name, if that
// is certain to be its work.
func (u *httpUpload) removePartial(ctx context.Context) error {
	if u.sent || u.src == nil {
		return nil
	}
	size, tag, ours := u.ours(ctx)
	switch {
	case size < 0:
		return nil
	case ours && !u.force:
		return u.removeTarget(ctx, tag)
	case ours:
		return fmt.Errorf("%s is partial: %d bytes of %d", u, size, u.src.Size())
	}
	return nil
}

func (u *httpUpload) removeTarget(ctx context.Context, tag string) error {
	r := webRequest{method: "DELETE", to: u.to, also: []int{http.StatusNotFound}}
	if tag != "" {
		r.header = map[string]string{"If-Match": tag}
	}
	resp, err := u.client.send(ctx, r)
	if err != nil {
		return fmt.Errorf("partial file %s is left over on the server: %w", u, err)
	}
	drain(resp)
	return nil
}

// ours looks whether the target begins and ends as a part of the source that is
// as long. It returns its size, -1 for none, and its tag.
func (u *httpUpload) ours(ctx context.Context) (size int64, tag string, ours bool) {
	resp, err := u.client.send(ctx, webRequest{method: "HEAD", to: u.to})
	if err != nil || resp.ContentLength < 0 {
		return -1, "", false
	}
	drain(resp)
	size, tag = resp.ContentLength, strongTag(resp.Header)
	if size > u.src.Size() {
		return size, tag, false
	}
	n := min(sample, size)
	for _, off := range []int64{0, size - n} {
		want := make([]byte, n)
		if readSource(u.src, want, off) != nil {
			return size, tag, false
		}
		var got bytes.Buffer
		if u.client.readRange(ctx, u.to, &got, off, n) != nil || !bytes.Equal(got.Bytes(), want) {
			return size, tag, false
		}
	}
	return size, tag, true
}

// strongTag returns the ETag of an answer, unless it is a weak one.
func strongTag(h http.Header) string {
	tag := h.Get("ETag")
	if !strings.HasPrefix(tag, `"`) {
		return ""
	}
	return tag
}
