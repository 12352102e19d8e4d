package webdav

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// A file is known again by some of its bytes.
const (
	sample  = 64 << 10 // bytes
	samples = 5
)

// sendDirect sends the file to its final name.
func (u *upload) sendDirect(ctx context.Context, log servers.Log) error {
	header := map[string]string{}
	if !u.force {
		header["If-None-Match"] = "*" // RFC 9110, section 13.1.2
	}
	all := web.Piece{Start: 0, End: u.src.Size()}
	tries := 0
	err := u.client.Retry.Own().Do(ctx, "send", func() error {
		if tries > 0 {
			// Only the answer may have been lost.
			size, tag, ours := u.ours(ctx)
			switch {
			case ours && size == all.End:
				data, err := transfer.DataSize(u.src)
				log.Sent(data)
				return err
			case ours && !u.force:
				if err := u.removeTarget(ctx, tag); err != nil {
					return err
				}
			}
		}
		tries++
		return u.putOnce(ctx, u.to, all, header, log)
	})
	if web.HasStatus(err, http.StatusPreconditionFailed) {
		u.sent = true // nothing partial of ours is there
		if size, _, ours := u.ours(ctx); tries > 1 && ours && size == all.End {
			data, err := transfer.DataSize(u.src)
			log.Sent(data)
			return err
		}
		return transfer.Exists(u.String())
	}
	if err != nil {
		return err
	}
	size, err := u.size(ctx, u.to)
	if err == nil && size != all.End {
		err = transfer.Lasting(fmt.Errorf("the server has %d bytes of %d that were sent", size, all.End))
	}
	u.sent = err == nil
	return err
}

// removePartial removes what a failed upload has left at the final name, if that
// is certain to be its work.
func (u *upload) removePartial(ctx context.Context) error {
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

func (u *upload) removeTarget(ctx context.Context, tag string) error {
	r := web.Request{Method: "DELETE", To: u.to, Also: []int{http.StatusNotFound}}
	if tag != "" {
		r.Header = map[string]string{"If-Match": tag}
	}
	resp, err := u.client.Send(ctx, r)
	if err != nil {
		return fmt.Errorf("partial file %s is left over on the server: %w", u, err)
	}
	web.Drain(resp)
	return nil
}

// ours looks whether the target is what the source begins with. It returns its
// size, -1 for none, and its tag. It is read to its end: another's image may
// begin and end as ours does.
func (u *upload) ours(ctx context.Context) (size int64, tag string, ours bool) {
	resp, err := u.client.Send(ctx, web.Request{Method: "HEAD", To: u.to})
	if err != nil || resp.ContentLength < 0 {
		return -1, "", false
	}
	web.Drain(resp)
	size, tag = resp.ContentLength, strongTag(resp.Header)
	if size > u.src.Size() {
		return size, tag, false
	}
	return size, tag, u.compare(ctx, web.Piece{Start: 0, End: size}) == nil
}

// resembles says whether the target, of size bytes, has some of the source's
// data, and ends as it does.
func (u *upload) resembles(ctx context.Context, size int64) (bool, error) {
	if size != u.src.Size() {
		return false, nil
	}
	for i := range int64(samples) {
		start, end, err := transfer.NextData(u.src, size/(samples-1)*i)
		if err != nil {
			return false, transfer.Lasting(err)
		}
		if start >= size {
			start, end = max(0, size-sample), size
		}
		if err := u.compare(ctx, web.Piece{Start: start, End: min(end, start+sample)}); err != nil {
			if errors.Is(err, transfer.ErrDiffers) {
				err = nil
			}
			return false, err
		}
	}
	return true, nil
}

// compare compares a piece of the target with the source.
func (u *upload) compare(ctx context.Context, p web.Piece) error {
	w := &comparing{r: &web.PieceReader{Src: u.src, Piece: p}}
	return u.client.ReadAll(ctx, u.to, w, p.Start, p.End-p.Start)
}

// comparing is a writer that fails when what is written is not what r reads.
type comparing struct {
	r   io.Reader
	buf []byte
}

func (c *comparing) Write(p []byte) (int, error) {
	c.buf = slices.Grow(c.buf[:0], len(p))[:len(p)]
	if _, err := io.ReadFull(c.r, c.buf); err != nil {
		return 0, err
	}
	if !bytes.Equal(c.buf, p) {
		return 0, transfer.ErrDiffers
	}
	return len(p), nil
}

// strongTag returns the ETag of an answer, unless it is a weak one.
func strongTag(h http.Header) string {
	tag := h.Get("ETag")
	if !strings.HasPrefix(tag, `"`) {
		return ""
	}
	return tag
}
