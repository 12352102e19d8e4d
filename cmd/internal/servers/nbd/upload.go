// Package nbd sends disks to NBD exports, and fetches them.
package nbd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/nbd"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// flushEvery in bytes of data, and flushAfter, are what a broken connection
	// costs at most. A flush makes the server wait for its disk.
	flushEvery = 256 << 20
	flushAfter = 10 * time.Second
	// flushLeast is the same for a line that breaks again and again.
	flushLeast = 4 << 20
	// zeroSize in bytes is what one request zeroes at first. A server that has to
	// write zeros for all that are under way, at 10 MB a second, still answers
	// within the patience of package nbd.
	zeroSize = 64 << 20
	// maxZeroSize in bytes is what one request zeroes at a server that answers
	// within quickZero, faster than any disk writes so much.
	maxZeroSize = 1 << 30
	quickZero   = 50 * time.Millisecond
)

// upload writes to an NBD export. It has no name to appear under: what fails
// leaves a part of it there, and an export that is larger keeps the rest.
type upload struct {
	*server
	size    int64 // of the export, in bytes
	retrier *transfer.Retrier
	resume  uploadState
	// flushEvery is how many bytes of data are sent before a flush.
	flushEvery int64
}

// uploadState is what a later run needs.
type uploadState struct {
	// Size of the export in bytes: another one is not the same.
	Size int64 `json:"size"`
	// Flushed is the offset before which all is durable.
	Flushed int64 `json:"flushed"`
}

var _ = (servers.Checker)((*upload)(nil))
var _ = (servers.ReadBacker)((*upload)(nil))

// Open opens the export that a URL names as a destination.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	s, err := openServer(ctx, dest, o, false)
	if err != nil {
		return nil, err
	}
	u := &upload{server: s, retrier: transfer.NewRetrier(o), flushEvery: flushEvery}
	c, err := s.connected(ctx)
	if err == nil {
		u.size = c.Size()
		if c.Flags().ReadOnly {
			err = &cli.Error{Err: fmt.Errorf("%s: the export is read-only", s), Code: cli.ExitServer}
		}
	}
	if err == nil && o.Resume != nil {
		if err = json.Unmarshal(o.Resume, &u.resume); err != nil {
			err = fmt.Errorf("the record of an earlier run is damaged: %w", err)
		}
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return u, nil
}

// Check implements [servers.Checker].
func (u *upload) Check(_ context.Context, f servers.File) error {
	return transfer.CheckDisk(u.String(), u.size, f)
}

// Send implements [servers.Upload]. Holes are zeroed, since anything can be on
// the export; the server may keep them as holes.
func (u *upload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	if src.Size() > u.size {
		return transfer.NoSpace(u.String(), src.Size(), u.size)
	}
	u.retrier.Say = log.Say
	t := &pass{upload: u, src: src, log: log}
	if err := u.retrier.Do(ctx, "look at what was sent before", func() error { return t.resume(ctx, u.resume) }); err != nil {
		return err
	}
	log.Keep(uploadState{u.size, t.flushed})
	return u.retrier.Do(ctx, "send", func() error { return t.run(ctx) })
}

// pass is what is sent over one or more connections in turn.
type pass struct {
	*upload
	src servers.Source
	log servers.Log

	// client is what was used last; another one has to be looked at first.
	client *nbd.Client
	// flushed is the offset before which all is durable.
	flushed int64
	// sent counts the bytes of data that were sent.
	sent atomic.Int64
	// zeroes is how many bytes one request zeroes.
	zeroes atomic.Int64
}

// request is a range to write or to zero.
type request struct {
	transfer.Chunk
	zero bool
	*transfer.Pending
}

// resume takes up what an earlier run has flushed, if it is still there.
func (t *pass) resume(ctx context.Context, state uploadState) error {
	client, err := t.connected(ctx)
	if err != nil || state.Flushed <= 0 {
		return err
	}
	same := state.Size == t.size && state.Flushed <= t.src.Size()
	if same {
		if same, err = t.has(ctx, client, state.Flushed); err != nil {
			return t.failed(ctx, client, "send", err)
		}
	}
	if !same {
		t.log.Say("what an earlier run has sent is not on the export any more; beginning anew")
		return nil
	}
	kept, err := transfer.DataBefore(t.src, state.Flushed)
	if err != nil {
		return err
	}
	t.client, t.flushed = client, state.Flushed
	t.log.Kept(kept)
	return nil
}

// has says whether the export has what was written before an offset, by a few
// samples of it: a server that was started again may have another disk, or an
// empty one in memory.
func (t *pass) has(ctx context.Context, client *nbd.Client, end int64) (bool, error) {
	const length = 64 << 10
	samples := []int64{0, end - length}
	first := true
	err := transfer.EachRun(t.src, 0, func(start, stop int64) error {
		switch {
		case start >= end:
			return io.EOF
		case first:
			samples = append(samples, start, 0)
			first = false
		}
		samples[len(samples)-1] = min(stop, end) - length
		return nil
	})
	if err != nil && err != io.EOF {
		return false, err
	}
	got, want := make([]byte, length), make([]byte, length)
	for _, off := range samples {
		off = max(off, 0)
		n := min(length, end-off)
		if err := client.ReadAt(ctx, got[:n], off); err != nil {
			return false, err
		}
		if err := transfer.ReadSource(t.src, want[:n], off); err != nil {
			return false, err
		}
		if !bytes.Equal(got[:n], want[:n]) {
			return false, nil
		}
	}
	return true, nil
}

// run sends what is not flushed yet over the present connection, and flushes.
func (t *pass) run(ctx context.Context) error {
	client, err := t.connected(ctx)
	if err != nil {
		return err
	}
	if client != t.client && t.flushed > 0 {
		if err := t.lookAgain(ctx, client); err != nil {
			return t.failed(ctx, client, "send", err)
		}
	}
	t.client = client
	t.zeroes.Store(zeroSize)
	from, sent := t.flushed, t.sent.Load()
	if err := t.send(ctx, client); err != nil {
		// What was not flushed will be sent again.
		if durable, e := transfer.DataBetween(t.src, from, t.flushed); e == nil {
			t.log.Sent(durable - (t.sent.Load() - sent))
		}
		t.log.Keep(uploadState{t.size, t.flushed})
		// On a line that breaks often, less has to be enough for some progress.
		t.flushEvery = max(t.flushEvery/4, flushLeast)
		return t.failed(ctx, client, "send", err)
	}
	return nil
}

// lookAgain begins anew if what was flushed is not on the export any more.
func (t *pass) lookAgain(ctx context.Context, client *nbd.Client) error {
	same, err := t.has(ctx, client, t.flushed)
	if err != nil || same {
		return err
	}
	lost, err := transfer.DataBefore(t.src, t.flushed)
	if err != nil {
		return err
	}
	t.log.Say("what was sent is not on the export any more; beginning anew")
	t.log.Sent(-lost)
	t.flushed = 0
	return nil
}

func (t *pass) send(ctx context.Context, client *nbd.Client) error {
	if err := t.sendAll(ctx, client); err != nil {
		return err
	}
	return t.flush(ctx, client, t.src.Size())
}

// sendAll sends what is not flushed yet; the last of it is not flushed then.
func (t *pass) sendAll(ctx context.Context, client *nbd.Client) error {
	group, ctx := errgroup.WithContext(ctx)
	requests := make(chan request)
	arrived := make(chan int64, 1) // the newest offset before which all was written
	front := &transfer.Front{Advance: func(off int64) {
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
	var senders sync.WaitGroup
	// What is under way is not flushed.
	for range min(inFlight, t.flushEvery/chunkSize) {
		senders.Add(1)
		group.Go(func() error {
			defer senders.Done()
			buf := make([]byte, chunkSize)
			for r := range requests {
				if err := t.write(ctx, client, r, buf); err != nil {
					return err
				}
				front.Arrive(r.Pending)
			}
			return nil
		})
	}
	group.Go(func() error {
		senders.Wait()
		close(arrived)
		return nil
	})
	group.Go(func() error {
		last, sent := time.Now(), t.sent.Load()
		for off := range arrived {
			now := t.sent.Load()
			if now-sent < t.flushEvery && time.Since(last) < flushAfter {
				continue
			}
			if err := t.flush(ctx, client, off); err != nil {
				return err
			}
			last, sent = time.Now(), now
		}
		return nil
	})
	return group.Wait()
}

// flush makes durable what was written, which is all before off.
func (t *pass) flush(ctx context.Context, client *nbd.Client, off int64) error {
	if err := client.Flush(ctx); err != nil {
		return err
	}
	t.flushed = off
	t.retrier.Progress()
	t.log.Keep(uploadState{t.size, off})
	return nil
}

// split cuts the source into requests, holes too, from what is flushed on.
func (t *pass) split(ctx context.Context, front *transfer.Front, requests chan<- request) error {
	ask := func(off, length int64, zero bool) error {
		select {
		case requests <- request{transfer.Chunk{Off: off, Length: length}, zero, front.Begin(off + length)}:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	// Zeroing costs no bytes on the line, so its pieces are large.
	zero := func(from, to int64) error {
		for from < to {
			length := min(t.zeroes.Load(), to-from)
			if err := ask(from, length, true); err != nil {
				return err
			}
			from += length
		}
		return nil
	}
	at := t.flushed
	err := transfer.EachRun(t.src, at, func(start, end int64) error {
		if err := zero(at, start); err != nil {
			return err
		}
		for at = start; at < end; at += min(chunkSize, end-at) {
			if err := ask(at, min(chunkSize, end-at), false); err != nil {
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

func (t *pass) write(ctx context.Context, client *nbd.Client, r request, buf []byte) error {
	if r.zero {
		return t.zero(ctx, client, r.Chunk)
	}
	if err := t.writeData(ctx, client, r.Chunk, buf); err != nil {
		return err
	}
	t.sent.Add(r.Length)
	t.log.Sent(r.Length)
	return nil
}

// zero zeroes a range. A server that is quick is asked for more at a time from
// then on, since 1 TiB takes many requests otherwise; one that has become slow,
// for it came to where it has to write, for as little as at first.
func (t *pass) zero(ctx context.Context, client *nbd.Client, c transfer.Chunk) error {
	begin := time.Now()
	if err := client.WriteZeroes(ctx, c.Off, c.Length, true); err != nil {
		return err
	}
	limit, took := t.zeroes.Load(), time.Since(begin)
	switch {
	case took > 10*quickZero:
		t.zeroes.Store(zeroSize)
	case took < quickZero && c.Length == limit && client.Flags().WriteZeroes:
		t.zeroes.CompareAndSwap(limit, min(2*limit, maxZeroSize))
	}
	return nil
}

func (t *pass) writeData(ctx context.Context, client *nbd.Client, c transfer.Chunk, buf []byte) error {
	ranges, ok := t.src.(servers.FileRanges)
	if !ok {
		buf = buf[:c.Length]
		if err := transfer.ReadSource(t.src, buf, c.Off); err != nil {
			return err
		}
		return client.WriteAt(ctx, buf, c.Off)
	}
	off := c.Off
	err := ranges.FileRanges(c.Off, c.Length, func(file *os.File, at, length int64) error {
		defer func() { off += length }()
		if file != nil {
			err := client.WriteFrom(ctx, file, at, off, length)
			if err != nil && ctx.Err() == nil && !nbd.IsServerError(err) {
				err = transfer.Lasting(fmt.Errorf("read what is to be sent at offset %#x: %w", off, err))
			}
			return err
		}
		if err := transfer.ReadSource(t.src, buf[:length], off); err != nil {
			return err
		}
		return client.WriteAt(ctx, buf[:length], off)
	})
	return err
}

// ReadBack implements [servers.ReadBacker].
func (u *upload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	return u.retrier.ReadAll(ctx, "read it back", w, off, length, func(w io.Writer, off, length int64) error {
		return u.read(ctx, w, off, length)
	})
}

// Publish implements [servers.Upload]: all is where it is to be.
func (u *upload) Publish(context.Context) error { return nil }

// Close implements [servers.Upload].
func (u *upload) Close(bool) error { return u.close() }
