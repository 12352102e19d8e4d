package imageio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// maxExtents is how many runs of data are remembered; more cost memory, and are
// taken for one.
const maxExtents = 1 << 20

// download reads the disk of a transfer.
type download struct {
	*ticket
	lanes int
	data  []web.Piece // in order; nil with whole
	whole bool        // the server does not tell what is data
}

var _ = (servers.Download)((*download)(nil))
var _ = (servers.Sparse)((*download)(nil))

// OpenSource opens the disk that a URL names for fetching.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	t, err := openTicket(ctx, src, o)
	if err != nil {
		return nil, err
	}
	d := &download{ticket: t, lanes: t.connections(t.can.MaxReaders, o)}
	end := int64(-1)
	d.data, end, err = t.extents(ctx)
	if web.HasStatus(err, http.StatusNotFound) {
		err = nil
	}
	if err == nil && t.size < 0 {
		t.size = end
	}
	if err == nil && t.size < 0 {
		err = errors.New("the server does not tell the disk's size")
	}
	if err != nil {
		t.client.Close()
		return nil, t.fail("ask for its extents", err)
	}
	// A volume's file may be shorter than the disk, or longer.
	d.whole = end != t.size
	return d, nil
}

// Size implements [servers.Download].
func (d *download) Size() int64 { return d.size }

// Version implements [servers.Download]: what nobody may write stays as it is for
// as long as the ticket lives.
func (d *download) Version() string {
	if len(d.can.allow) == 0 || d.can.may("PUT") {
		return ""
	}
	return fmt.Sprintf("a transfer of %d bytes", d.size)
}

// Lanes implements [servers.Download].
func (d *download) Lanes() int { return d.lanes }

// Read implements [servers.Download].
func (d *download) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = max(0, d.size-off)
	}
	return d.fail("read", d.client.ReadRange(ctx, d.at, w, off, length))
}

// NextData implements [servers.Sparse].
func (d *download) NextData(_ context.Context, off int64) (start, end int64, err error) {
	if d.whole {
		return min(off, d.size), d.size, nil
	}
	i, found := slices.BinarySearchFunc(d.data, off, func(p web.Piece, off int64) int {
		switch {
		case p.End <= off:
			return -1
		case p.Start > off:
			return 1
		}
		return 0
	})
	switch {
	case i == len(d.data):
		return d.size, d.size, nil
	case found:
		return off, d.data[i].End, nil
	}
	return d.data[i].Start, d.data[i].End, nil
}

// Close implements [servers.Download].
func (d *download) Close() error {
	d.client.Close()
	return nil
}

// extents returns what is data of the disk, and the end of the last extent; -1:
// the server does not tell.
func (t *ticket) extents(ctx context.Context) (data []web.Piece, end int64, err error) {
	if !t.can.has("extents") {
		return nil, -1, nil
	}
	err = t.client.Retry.Own().Do(ctx, "ask for its extents", func() error {
		resp, err := t.client.Send(ctx, web.Request{Method: "GET", To: t.sub("/extents", "context=zero"), Limit: web.AnswerTimeout})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		data, end, err = parseExtents(resp.Body, maxExtents)
		return err
	})
	return data, end, err
}

// parseExtents reads a list of extents (docs/images.md, "Zero extent"). Runs of
// data behind the most that are remembered become one.
func parseExtents(r io.Reader, most int) (data []web.Piece, end int64, err error) {
	d := json.NewDecoder(r)
	if _, err := d.Token(); err != nil {
		return nil, -1, fmt.Errorf("extents: %w", err)
	}
	for d.More() {
		var e struct {
			Start  int64 `json:"start"`
			Length int64 `json:"length"`
			Zero   bool  `json:"zero"`
		}
		if err := d.Decode(&e); err != nil {
			return nil, -1, fmt.Errorf("extents: %w", err)
		}
		if e.Start != end || e.Length <= 0 || e.Start+e.Length < e.Start {
			return nil, -1, transfer.Lasting(fmt.Errorf("extents: one at %d of %d bytes after the offset %d", e.Start, e.Length, end))
		}
		end += e.Length
		switch last := len(data) - 1; {
		case e.Zero:
		case last >= 0 && (data[last].End == e.Start || len(data) == most):
			data[last].End = end
		default:
			data = append(data, web.Piece{Start: e.Start, End: end})
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, -1, fmt.Errorf("extents: %w", err)
	}
	return data, end, nil
}
