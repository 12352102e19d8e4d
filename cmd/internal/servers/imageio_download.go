package servers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// maxExtents is how many runs of data are remembered; more cost memory, and are
// taken for one.
const maxExtents = 1 << 20

// imageioDownload reads the disk of a transfer.
type imageioDownload struct {
	*imageioTicket
	lanes int
	data  []piece // in order; nil with whole
	whole bool    // the server does not tell what is data
}

var _ = (Download)((*imageioDownload)(nil))
var _ = (Sparse)((*imageioDownload)(nil))

func openImageioSource(ctx context.Context, src string, o Options) (Download, error) {
	t, err := openTicket(ctx, src, o)
	if err != nil {
		return nil, err
	}
	d := &imageioDownload{imageioTicket: t, lanes: t.connections(t.can.MaxReaders, o)}
	end := int64(-1)
	d.data, end, err = t.extents(ctx)
	if hasStatus(err, http.StatusNotFound) {
		err = nil
	}
	if err == nil && t.size < 0 {
		t.size = end
	}
	if err == nil && t.size < 0 {
		err = errors.New("the server does not tell the disk's size")
	}
	if err != nil {
		t.client.close()
		return nil, t.fail("ask for its extents", err)
	}
	// A volume's file may be shorter than the disk, or longer.
	d.whole = end != t.size
	return d, nil
}

// Size implements [Download].
func (d *imageioDownload) Size() int64 { return d.size }

// Version implements [Download]: what nobody may write stays as it is for as
// long as the ticket lives.
func (d *imageioDownload) Version() string {
	if len(d.can.allow) == 0 || d.can.may("PUT") {
		return ""
	}
	return fmt.Sprintf("a transfer of %d bytes", d.size)
}

// Lanes implements [Download].
func (d *imageioDownload) Lanes() int { return d.lanes }

// Read implements [Download].
func (d *imageioDownload) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = max(0, d.size-off)
	}
	return d.fail("read", d.client.readRange(ctx, d.at, w, off, length))
}

// NextData implements [Sparse].
func (d *imageioDownload) NextData(_ context.Context, off int64) (start, end int64, err error) {
	if d.whole {
		return min(off, d.size), d.size, nil
	}
	i, found := slices.BinarySearchFunc(d.data, off, func(p piece, off int64) int {
		switch {
		case p.end <= off:
			return -1
		case p.start > off:
			return 1
		}
		return 0
	})
	switch {
	case i == len(d.data):
		return d.size, d.size, nil
	case found:
		return off, d.data[i].end, nil
	}
	return d.data[i].start, d.data[i].end, nil
}

// Close implements [Download].
func (d *imageioDownload) Close() error {
	d.client.close()
	return nil
}

// extents returns what is data of the disk, and the end of the last extent; -1:
// the server does not tell.
func (t *imageioTicket) extents(ctx context.Context) (data []piece, end int64, err error) {
	if !t.can.has("extents") {
		return nil, -1, nil
	}
	err = t.client.retry.own().do(ctx, "ask for its extents", func() error {
		resp, err := t.client.send(ctx, webRequest{method: "GET", to: t.sub("/extents", "context=zero"), limit: answerTimeout})
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
func parseExtents(r io.Reader, most int) (data []piece, end int64, err error) {
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
			return nil, -1, lasting{fmt.Errorf("extents: one at %d of %d bytes after the offset %d", e.Start, e.Length, end)}
		}
		end += e.Length
		switch last := len(data) - 1; {
		case e.Zero:
		case last >= 0 && (data[last].end == e.Start || len(data) == most):
			data[last].end = end
		default:
			data = append(data, piece{e.Start, end})
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, -1, fmt.Errorf("extents: %w", err)
	}
	return data, end, nil
}
