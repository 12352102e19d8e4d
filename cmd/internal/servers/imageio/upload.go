// Package imageio sends disks to the image I/O daemon of oVirt, and fetches them: a
// ticket of an image transfer names the disk.
package imageio

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// pieceSize is how many bytes go in one PUT.
	pieceSize = 16 << 20
	// zeroSize is how many bytes are zeroed in one request, which some storage
	// has to write.
	zeroSize = 16 << 30
	// flushEvery is how many bytes may be lost when the line breaks. A flush
	// takes a moment in which a disk does nothing else.
	flushEvery = 256 << 20
)

// upload writes to the disk of a transfer. There is no name and no part: the
// engine shows the disk to nobody before the transfer is finished.
type upload struct {
	*ticket
	workers int
	state   uploadState
	resumed bool
	src     servers.Source // nil until Send

	flushEvery int64 // bytes
	flushing   sync.Mutex
	arrived    atomic.Int64 // offset before which all has arrived
	lost       atomic.Bool  // what was not flushed, in this pass

	mu sync.Mutex
	// underWay are the requests that have begun since the last flush.
	underWay *sync.WaitGroup
}

// uploadState is what the next run needs.
type uploadState struct {
	// Size of the file, and Disk, that of the server's, in bytes.
	Size, Disk int64
	// Offset before which all has arrived and was flushed: nothing else
	// outlives the server.
	Offset int64
}

var _ = (servers.Checker)((*upload)(nil))
var _ = (servers.ReadBacker)((*upload)(nil))

// Open opens the disk that a URL names as a destination.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	t, err := openTicket(ctx, dest, o)
	if err != nil {
		return nil, err
	}
	u := &upload{ticket: t, workers: t.connections(t.can.MaxWriters, o), flushEvery: flushEvery, underWay: new(sync.WaitGroup)}
	if o.Resume != nil {
		if err := json.Unmarshal(o.Resume, &u.state); err != nil {
			t.client.Close()
			return nil, fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
		}
		u.resumed = true
	}
	if !t.can.may("PUT") {
		t.client.Close()
		return nil, &cli.Error{
			Err:  fmt.Errorf("%s: the transfer is for reading only", u),
			Hint: "start one with direction=upload",
			Code: cli.ExitServer,
		}
	}
	return u, nil
}

// Check implements [servers.Checker].
func (u *upload) Check(_ context.Context, f servers.File) error {
	// oVirt has disks of two formats (its DiskFormat: raw, cow).
	want, ok := "raw or qcow2", f.Format == "raw" || f.Format == "qcow2"
	if u.can.TransferFormat != "" {
		want, ok = u.can.TransferFormat, f.Format == u.can.TransferFormat
	}
	if !ok {
		return &cli.Error{
			Err:  fmt.Errorf("%s: the transfer takes %s, not %s", u, want, f.Format),
			Hint: "choose with --format, or start a transfer of another format",
			Code: cli.ExitServer,
		}
	}
	if u.size >= 0 && f.Size > u.size {
		return &cli.Error{
			Err:  fmt.Errorf("%s: the disk has %s, the file %s", u, cli.FormatSize(u.size), cli.FormatSize(f.Size)),
			Hint: fmt.Sprintf("make a disk of %d bytes or more", f.Size),
			Code: cli.ExitNoSpace,
		}
	}
	return nil
}

// Send implements [servers.Upload].
func (u *upload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	u.client.Retry.Say = log.Say
	u.src = src
	if err := u.begin(log); err != nil {
		return err
	}
	retry := u.client.Retry.Own()
	for {
		from := u.state.Offset
		err := u.pass(ctx, log)
		if !transfer.Is[unflushed](err) {
			return u.fail("send", err)
		}
		if u.state.Offset > from {
			retry.Progress()
		}
		if err := retry.Wait(ctx, "send", err); err != nil {
			return u.fail("send", err)
		}
	}
}

// begin looks at what an earlier run has sent.
func (u *upload) begin(log servers.Log) error {
	now := uploadState{Size: u.src.Size(), Disk: u.size}
	if u.resumed && u.state.Size == now.Size && u.state.Disk == now.Disk && u.state.Offset <= now.Size {
		kept, err := transfer.DataBefore(u.src, u.state.Offset)
		if err != nil {
			return err
		}
		log.Kept(kept)
		return nil
	}
	if u.resumed {
		log.Say("the disk of the transfer is another one: beginning anew")
	}
	u.state = now
	log.Keep(u.state)
	return nil
}

// ReadBack implements [servers.ReadBacker].
func (u *upload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	return u.fail("read it back", u.client.ReadAll(ctx, u.at, w, off, length))
}

// Publish implements [servers.Upload]: whoever has started the transfer finishes
// it.
func (u *upload) Publish(context.Context) error { return nil }

// Close implements [servers.Upload]. What was written stays in the disk.
func (u *upload) Close(bool) error {
	u.client.Close()
	return nil
}
