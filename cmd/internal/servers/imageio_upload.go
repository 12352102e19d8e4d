package servers

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"flatimg/cmd/internal/cli"
)

const (
	// imageioPiece is how many bytes go in one PUT.
	imageioPiece = 16 << 20
	// imageioZero is how many bytes are zeroed in one request, which some
	// storage has to write.
	imageioZero = 16 << 30
	// imageioFlush is how many bytes may be lost when the line breaks. A flush
	// takes a moment in which a disk does nothing else.
	imageioFlush = 256 << 20
)

// imageioUpload writes to the disk of a transfer. There is no name and no part:
// the engine shows the disk to nobody before the transfer is finished.
type imageioUpload struct {
	*imageioTicket
	workers int
	state   imageioState
	resumed bool
	src     Source // nil until Send

	flushEvery int64 // bytes
	flushing   sync.Mutex
	arrived    atomic.Int64 // offset before which all has arrived
	lost       atomic.Bool  // what was not flushed, in this pass

	mu sync.Mutex
	// underWay are the requests that have begun since the last flush.
	underWay *sync.WaitGroup
}

// imageioState is what the next run needs.
type imageioState struct {
	// Size of the file, and Disk, that of the server's, in bytes.
	Size, Disk int64
	// Offset before which all has arrived and was flushed: nothing else
	// outlives the server.
	Offset int64
}

var _ = (Checker)((*imageioUpload)(nil))
var _ = (ReadBacker)((*imageioUpload)(nil))

func openImageio(ctx context.Context, dest string, o Options) (Upload, error) {
	t, err := openTicket(ctx, dest, o)
	if err != nil {
		return nil, err
	}
	u := &imageioUpload{imageioTicket: t, workers: t.connections(t.can.MaxWriters, o), flushEvery: imageioFlush, underWay: new(sync.WaitGroup)}
	if o.Resume != nil {
		if err := json.Unmarshal(o.Resume, &u.state); err != nil {
			t.client.close()
			return nil, fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
		}
		u.resumed = true
	}
	if !t.can.may("PUT") {
		t.client.close()
		return nil, &cli.Error{
			Err:  fmt.Errorf("%s: the transfer is for reading only", u),
			Hint: "start one with direction=upload",
			Code: cli.ExitServer,
		}
	}
	return u, nil
}

// Check implements [Checker].
func (u *imageioUpload) Check(_ context.Context, f File) error {
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

// Send implements [Upload].
func (u *imageioUpload) Send(ctx context.Context, src Source, log Log) error {
	u.client.retry.say = log.Say
	u.src = src
	if err := u.begin(log); err != nil {
		return err
	}
	retry := u.client.retry.own()
	for {
		from := u.state.Offset
		err := u.pass(ctx, log)
		if !is[unflushed](err) {
			return u.fail("send", err)
		}
		if u.state.Offset > from {
			retry.progress()
		}
		if err := retry.wait(ctx, "send", err); err != nil {
			return u.fail("send", err)
		}
	}
}

// begin looks at what an earlier run has sent.
func (u *imageioUpload) begin(log Log) error {
	now := imageioState{Size: u.src.Size(), Disk: u.size}
	if u.resumed && u.state.Size == now.Size && u.state.Disk == now.Disk && u.state.Offset <= now.Size {
		kept, err := dataBefore(u.src, u.state.Offset)
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

// ReadBack implements [ReadBacker].
func (u *imageioUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	return u.fail("read it back", u.client.readAll(ctx, u.at, w, off, length))
}

// Publish implements [Upload]: whoever has started the transfer finishes it.
func (u *imageioUpload) Publish(context.Context) error { return nil }

// Close implements [Upload]. What was written stays in the disk.
func (u *imageioUpload) Close(bool) error {
	u.client.close()
	return nil
}
