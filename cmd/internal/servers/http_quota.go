package servers

import (
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"strings"
)

// freeSpace returns the bytes that the account may still store in the target's
// folder (RFC 4331, section 3), where the server tells.
func (u *httpUpload) freeSpace(ctx context.Context) (int64, bool) {
	const question = `<?xml version="1.0" encoding="utf-8"?>` +
		`<propfind xmlns="DAV:"><prop><quota-available-bytes/></prop></propfind>`
	resp, err := u.client.send(ctx, webRequest{
		method: "PROPFIND", to: u.to.folder(), also: []int{http.StatusMultiStatus},
		header: map[string]string{"Depth": "0", "Content-Type": "application/xml"},
		body:   func() io.ReadCloser { return io.NopCloser(strings.NewReader(question)) },
		length: int64(len(question)),
	})
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	return parseQuota(io.LimitReader(resp.Body, 1<<20))
}

// parseQuota finds the number in an answer; Nextcloud's negative ones say that
// there is no limit.
func parseQuota(r io.Reader) (int64, bool) {
	d := xml.NewDecoder(r)
	for {
		token, err := d.Token()
		if err != nil {
			return 0, false
		}
		start, ok := token.(xml.StartElement)
		if !ok || start.Name.Space != "DAV:" || start.Name.Local != "quota-available-bytes" {
			continue
		}
		var text string
		if err := d.DecodeElement(&text, &start); err != nil {
			return 0, false
		}
		return parseOffset(strings.TrimSpace(text))
	}
}
