package imageio

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// ticket is a disk that an oVirt engine has opened for a transfer, at
// https://HOST:54322/images/TICKET (ovirt-imageio, docs/images.md). Who knows
// the ticket may read and write: it is not shown.
type ticket struct {
	client *web.Client
	at     web.Address
	can    options
	size   int64 // of the disk in bytes; -1: not told
}

// options are the answer to OPTIONS.
type options struct {
	// Features: "zero", "flush", "extents", "checksum".
	Features []string `json:"features"`
	// MaxReaders and MaxWriters are how many connections may be used at a time;
	// 0: not told, so that only one may.
	MaxReaders int `json:"max_readers"`
	MaxWriters int `json:"max_writers"`
	// TransferFormat is what is read and written, "raw" for the guest's disk;
	// empty: the bytes of the volume's file, whatever they are.
	TransferFormat string `json:"transfer_format"`
	// VirtualSize is that of the disk in bytes; 0: not told.
	VirtualSize int64 `json:"virtual_size"`

	allow []string // methods; empty: not told
}

func (o options) has(feature string) bool { return slices.Contains(o.Features, feature) }

// may says whether a method is allowed.
func (o options) may(method string) bool {
	return len(o.allow) == 0 || slices.Contains(o.allow, method)
}

// openTicket asks what can be done with a ticket.
func openTicket(ctx context.Context, text string, o servers.Options) (*ticket, error) {
	at, err := web.ParseAddress(text)
	if err != nil {
		return nil, err
	}
	t := &ticket{at: at, size: -1}
	if at.User != "" || at.URL.RawQuery != "" || at.Name() == "" {
		return nil, transfer.Usage(fmt.Errorf("%s: not the URL of a transfer", t), "write %s://host:54322/images/TICKET, the transfer_url of the image transfer", at.Scheme)
	}
	o.User = "" // the ticket is all
	if t.client, err = web.NewClient(ctx, at, o, false); err != nil {
		return nil, err
	}
	t.client.Auth, t.client.Secret = "", at.Name()
	if err := t.ask(ctx); err != nil {
		t.client.Close()
		return nil, t.fail("ask for the transfer", err)
	}
	return t, nil
}

// ask fills what the server tells.
func (t *ticket) ask(ctx context.Context) error {
	err := t.client.Retry.Own().Do(ctx, "ask for the transfer", func() error {
		// Servers before 1.3 answer 405, their proxies 204.
		resp, err := t.client.Send(ctx, web.Request{Method: "OPTIONS", To: t.at, Also: []int{http.StatusMethodNotAllowed}})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil
		}
		for _, method := range strings.Split(resp.Header.Get("Allow"), ",") {
			if method = strings.TrimSpace(method); method != "" {
				t.can.allow = append(t.can.allow, method)
			}
		}
		return decodeAnswer(resp.Body, &t.can)
	})
	if err != nil {
		return err
	}
	if t.can.VirtualSize > 0 {
		t.size = t.can.VirtualSize
		return nil
	}
	return t.askSize(ctx)
}

// askSize reads the first byte, whose answer tells the size.
func (t *ticket) askSize(ctx context.Context) error {
	return t.client.Retry.Own().Do(ctx, "ask for the size", func() error {
		resp, err := t.client.Send(ctx, web.Request{Method: "GET", To: t.at, Header: map[string]string{"Range": "bytes=0-0"}})
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, _, size, err := web.ParseContentRange(resp.Header.Get("Content-Range")); err == nil {
			t.size = size
		}
		return nil
	})
}

// decodeAnswer decodes a short answer in JSON.
func decodeAnswer(r io.Reader, v any) error {
	if err := json.NewDecoder(io.LimitReader(r, web.MaxAnswer)).Decode(v); err != nil {
		if transfer.MayPass(err) && err != io.EOF {
			return err // the line has failed
		}
		return transfer.Lasting(fmt.Errorf("the answer is not understood: %w", err))
	}
	return nil
}

// sub is a resource below the ticket.
func (t *ticket) sub(name, query string) web.Address {
	return t.at.At(strings.TrimSuffix(t.at.URL.EscapedPath(), "/") + name).Query(query)
}

// connections is how many of most connections, which the server tells, are used.
func (t *ticket) connections(most int, o servers.Options) int {
	return max(1, min(most, cmp.Or(max(o.Connections, 0), web.DefaultLanes)))
}

// String leaves out most of the ticket.
func (t *ticket) String() string {
	name := t.at.Name()
	if len(name) > 8 {
		name = name[:8] + "…"
	}
	folder := t.at.Folder()
	return folder.String() + name
}

func (t *ticket) fail(what string, err error) error {
	switch {
	case web.HasStatus(err, http.StatusForbidden):
		err = &cli.Error{Err: err, Hint: "the transfer does not exist, is paused or has expired: start another one", Code: cli.ExitServer}
	case web.HasStatus(err, http.StatusRequestedRangeNotSatisfiable):
		err = &cli.Error{Err: err, Hint: "the disk of the transfer is too small", Code: cli.ExitNoSpace}
	}
	return web.Fail(t.String(), what, err)
}
