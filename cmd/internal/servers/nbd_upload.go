package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/nbd"
)

// nbdUpload writes to an NBD export. It has no name to appear under: what fails
// leaves a part of it there, and an export that is larger keeps the rest.
type nbdUpload struct {
	*nbdServer
	size    int64 // of the export, in bytes
	retrier *retrier
	resume  nbdState
}

// nbdState is what a later run needs.
type nbdState struct {
	// Size of the export in bytes: another one is not the same.
	Size int64 `json:"size"`
	// Flushed is the offset before which all is durable.
	Flushed int64 `json:"flushed"`
}

var _ = (Checker)((*nbdUpload)(nil))
var _ = (ReadBacker)((*nbdUpload)(nil))

func openNBDUpload(ctx context.Context, dest string, o Options) (Upload, error) {
	s, err := openNBD(ctx, dest, o, false)
	if err != nil {
		return nil, err
	}
	u := &nbdUpload{nbdServer: s, retrier: newRetrier(o)}
	c, err := s.connected(ctx)
	if err == nil {
		u.size = c.Size()
		if c.Flags().ReadOnly {
			err = &cli.Error{Err: fmt.Errorf("%s: the export is read-only", s), Code: cli.ExitServer}
		}
	}
	if err == nil && o.Resume != nil {
		err = unmarshalState(o.Resume, &u.resume)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return u, nil
}

// Check implements [Checker].
func (u *nbdUpload) Check(_ context.Context, f File) error { return checkDisk(u.String(), u.size, f) }

// Send implements [Upload]. Holes are zeroed, since anything can be on the
// export; the server may keep them as holes.
func (u *nbdUpload) Send(ctx context.Context, src Source, log Log) error {
	if src.Size() > u.size {
		return noSpace(u.String(), src.Size(), u.size)
	}
	u.retrier.say = log.Say
	t := &nbdTransfer{nbdUpload: u, src: src, log: log}
	if u.resume.Size == u.size && u.resume.Flushed > 0 {
		kept, err := dataBefore(src, u.resume.Flushed)
		if err != nil {
			return err
		}
		log.Kept(kept)
		t.flushed = u.resume.Flushed
	}
	log.Keep(nbdState{u.size, t.flushed})
	return u.retrier.do(ctx, "send", func() error { return t.run(ctx) })
}

// flushEvery in bytes: what a broken connection costs at most. A flush makes the
// server wait for its disk.
const flushEvery = 256 << 20

// nbdTransfer is what is sent over one or more connections in turn.
type nbdTransfer struct {
	*nbdUpload
	src Source
	log Log

	// flushed is the offset before which all is durable.
	flushed int64
	// unflushed counts the bytes of data after it that were sent.
	unflushed atomic.Int64
}

// nbdRequest is a range to write or to zero.
type nbdRequest struct {
	chunk
	zero bool
	*Pending
}

// run sends what is not flushed yet over the present connection, and flushes.
func (t *nbdTransfer) run(ctx context.Context) error {
	client, err := t.connected(ctx)
	if err != nil {
		return err
	}
	t.log.Sent(-t.unflushed.Swap(0))
	if err := t.send(ctx, client); err != nil {
		err = t.fail(ctx, "send", err)
		if mayPass(err) {
			t.broke(client)
		}
		return err
	}
	return nil
}

func (t *nbdTransfer) send(ctx context.Context, client *nbd.Client) error {
	if err := t.sendAll(ctx, client); err != nil {
		return err
	}
	return t.flush(ctx, client, t.src.Size())
}

// sendAll sends what is not flushed yet; the last of it is not flushed then.
func (t *nbdTransfer) sendAll(ctx context.Context, client *nbd.Client) error {
	group, ctx := errgroup.WithContext(ctx)
	requests := make(chan nbdRequest)
	arrived := make(chan int64, 1) // the newest offset before which all was written
	front := &Front{Advance: func(off int64) {
		select {
		case <-arrived:
		default:
		}
		arrived <- off
	}}
	group.Go(func() error {
		defer close(requests)
		return t.split(ctx, front, requests)
	})
	senders, sendCtx := errgroup.WithContext(ctx)
	for range nbdInFlight {
		senders.Go(func() error {
			buf := make([]byte, nbdChunk)
			for r := range requests {
				if err := t.write(sendCtx, client, r, buf); err != nil {
					return err
				}
				front.Arrive(r.Pending)
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(arrived)
		return senders.Wait()
	})
	group.Go(func() error {
		for off := range arrived {
			if off-t.flushed < flushEvery {
				continue
			}
			if err := t.flush(ctx, client, off); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// flush makes durable what was written, which is all before off.
func (t *nbdTransfer) flush(ctx context.Context, client *nbd.Client, off int64) error {
	before := t.unflushed.Load()
	if err := client.Flush(ctx); err != nil {
		return err
	}
	// What was counted meanwhile may lie before off as well; then a broken
	// connection takes back a little more than is sent again.
	t.unflushed.Add(-before)
	t.flushed = off
	t.retrier.progress()
	t.log.Keep(nbdState{t.size, off})
	return nil
}

// split cuts the source into requests, holes too, from what is flushed on.
func (t *nbdTransfer) split(ctx context.Context, front *Front, requests chan<- nbdRequest) error {
	ask := func(off, length int64, zero bool) error {
		select {
		case requests <- nbdRequest{chunk{off, length}, zero, front.Begin(off + length)}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	// Zeroing costs no bytes on the line, so its pieces are large.
	zero := func(from, to int64) error {
		for ; from < to; from += zeroStep {
			if err := ask(from, min(zeroStep, to-from), true); err != nil {
				return err
			}
		}
		return nil
	}
	at := t.flushed
	err := eachRun(t.src, at, func(start, end int64) error {
		if err := zero(at, start); err != nil {
			return err
		}
		for at = start; at < end; at += min(nbdChunk, end-at) {
			if err := ask(at, min(nbdChunk, end-at), false); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return zero(at, t.src.Size())
}

func (t *nbdTransfer) write(ctx context.Context, client *nbd.Client, r nbdRequest, buf []byte) error {
	if r.zero {
		return client.WriteZeroes(ctx, r.off, r.length, true)
	}
	if err := t.writeData(ctx, client, r.chunk, buf); err != nil {
		return err
	}
	t.unflushed.Add(r.length)
	t.log.Sent(r.length)
	return nil
}

// FileRanges is a Source of which some ranges lie in files, from where the
// kernel can send them.
type FileRanges interface {
	// FileRanges calls f for the parts of a range, in order. The file is nil
	// for a part that does not lie in one; at is where it lies there.
	FileRanges(off, length int64, f func(file *os.File, at, length int64) error) error
}

func (t *nbdTransfer) writeData(ctx context.Context, client *nbd.Client, c chunk, buf []byte) error {
	ranges, ok := t.src.(FileRanges)
	if !ok {
		buf = buf[:c.length]
		if err := readSource(t.src, buf, c.off); err != nil {
			return err
		}
		return client.WriteAt(ctx, buf, c.off)
	}
	off := c.off
	err := ranges.FileRanges(c.off, c.length, func(file *os.File, at, length int64) error {
		defer func() { off += length }()
		if file != nil {
			err := client.WriteFrom(ctx, file, at, off, length)
			if errors.Is(err, io.ErrUnexpectedEOF) && !nbd.IsConnectionError(err) {
				err = lasting{err}
			}
			return err
		}
		if err := readSource(t.src, buf[:length], off); err != nil {
			return err
		}
		return client.WriteAt(ctx, buf[:length], off)
	})
	return err
}

// ReadBack implements [ReadBacker].
func (u *nbdUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	return u.read(ctx, u.retrier, w, off, length)
}

// Publish implements [Upload]: all is where it is to be.
func (u *nbdUpload) Publish(context.Context) error { return nil }

// Close implements [Upload].
func (u *nbdUpload) Close(bool) error { return u.close() }
