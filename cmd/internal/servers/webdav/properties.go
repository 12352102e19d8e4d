package webdav

import (
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"strings"

	"flatimg/cmd/internal/servers/web"
)

// properties are what a WebDAV server tells of a file or a folder.
type properties struct {
	// collection: it is a folder (RFC 4918, section 15.9).
	collection bool
	// free bytes that the account may still store there (RFC 4331, section 3);
	// -1: not told, or no limit.
	free int64
}

// askProperties asks for them. Where nobody tells, it is a file, of which nothing
// is known.
func askProperties(ctx context.Context, c *web.Client, a web.Address) (p properties, err error) {
	const question = `<?xml version="1.0" encoding="utf-8"?>` +
		`<propfind xmlns="DAV:"><prop><resourcetype/><quota-available-bytes/></prop></propfind>`
	request := web.Request{
		Method: "PROPFIND", To: a, Also: []int{http.StatusMultiStatus},
		Header: map[string]string{"Depth": "0", "Content-Type": "application/xml"},
		Body:   func() io.ReadCloser { return io.NopCloser(strings.NewReader(question)) },
		Length: int64(len(question)),
	}
	p.free = -1
	err = c.Retry.Own().Do(ctx, "look at it", func() error {
		resp, err := c.Send(ctx, request)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusMultiStatus {
			p = parseProperties(io.LimitReader(resp.Body, 1<<20))
		}
		return nil
	})
	return p, unlessRefused(err)
}

// parseProperties finds them in an answer; what is not understood is not told.
func parseProperties(r io.Reader) properties {
	p := properties{free: -1}
	d := xml.NewDecoder(r)
	for {
		token, err := d.Token()
		if err != nil {
			return p
		}
		start, ok := token.(xml.StartElement)
		switch {
		case !ok || start.Name.Space != "DAV:":
		case start.Name.Local == "collection":
			p.collection = true
		case start.Name.Local == "quota-available-bytes":
			var text string
			if err := d.DecodeElement(&text, &start); err != nil {
				return p
			}
			// Nextcloud's negative ones say that there is no limit.
			if free, ok := web.ParseOffset(strings.TrimSpace(text)); ok {
				p.free = free
			}
		}
	}
}
