package servers

import (
	"context"
	"io"
	"sync"

	"flatimg/cmd/internal/nbd"
)

// nbdDownload reads an NBD export. Nobody tells whether it is the same in a
// later run.
type nbdDownload struct {
	*nbdServer
	size    int64
	retrier *retrier

	// The runs of the last answer about holes.
	mu   sync.Mutex
	runs []nbd.Run
}

var _ = (Sparse)((*nbdDownload)(nil))

func openNBDDownload(ctx context.Context, src string, o Options) (Download, error) {
	s, err := openNBD(ctx, src, o, true)
	if err != nil {
		return nil, err
	}
	c, err := s.connected(ctx)
	if err != nil {
		return nil, err
	}
	return &nbdDownload{nbdServer: s, size: c.Size(), retrier: newRetrier(o)}, nil
}

func (d *nbdDownload) Size() int64     { return d.size }
func (d *nbdDownload) Version() string { return "" }
func (d *nbdDownload) Lanes() int      { return nbdConnections }
func (d *nbdDownload) Close() error    { return d.close() }

// Read implements [Download].
func (d *nbdDownload) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = d.size - off
	}
	return d.read(ctx, d.retrier, w, off, length)
}

// read writes a range to w. It reads ahead: while w takes a piece, the next one
// is on its way.
func (s *nbdServer) read(ctx context.Context, r *retrier, w io.Writer, off, length int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type piece struct {
		bytes []byte
		err   error
	}
	const ahead = 4
	pieces := make(chan chan piece, ahead)
	go func() {
		defer close(pieces)
		for at := off; at < off+length; at += nbdChunk {
			p := make(chan piece, 1)
			select {
			case pieces <- p:
			case <-ctx.Done():
				return
			}
			n := min(nbdChunk, off+length-at)
			go func() {
				buf := make([]byte, n)
				err := r.do(ctx, "read", func() error { return s.readAt(ctx, buf, at) })
				p <- piece{buf, err}
			}()
		}
	}()
	for p := range pieces {
		got := <-p
		if got.err != nil {
			return got.err
		}
		if _, err := w.Write(got.bytes); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (s *nbdServer) readAt(ctx context.Context, p []byte, off int64) error {
	client, err := s.connected(ctx)
	if err != nil {
		return err
	}
	if err := client.ReadAt(ctx, p, off); err != nil {
		err = s.fail(ctx, "read", err)
		if mayPass(err) {
			s.broke(client)
		}
		return err
	}
	return nil
}

// NextData implements [Sparse].
func (d *nbdDownload) NextData(ctx context.Context, off int64) (start, end int64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for start = off; start < d.size; {
		run, err := d.runAt(ctx, start)
		if err != nil {
			return 0, 0, err
		}
		if run.Zero {
			start = run.Offset + run.Length
			continue
		}
		for end = run.Offset + run.Length; end < d.size; {
			next, err := d.runAt(ctx, end)
			if err != nil {
				return 0, 0, err
			}
			// Long enough for an answer; the rest is the next run.
			if next.Zero || end-start >= flushEvery {
				break
			}
			end = next.Offset + next.Length
		}
		return start, end, nil
	}
	return d.size, d.size, nil
}

// runAt returns the rest from off of the run that off lies in.
func (d *nbdDownload) runAt(ctx context.Context, off int64) (nbd.Run, error) {
	for _, r := range d.runs {
		if off >= r.Offset && off < r.Offset+r.Length {
			return nbd.Run{Offset: off, Length: r.Offset + r.Length - off, Zero: r.Zero}, nil
		}
	}
	err := d.retrier.do(ctx, "ask for holes", func() error {
		client, err := d.connected(ctx)
		if err != nil {
			return err
		}
		if d.runs, err = client.BlockStatus(ctx, off, min(d.size-off, 1<<30)); err != nil {
			err = d.fail(ctx, "ask for holes", err)
			if mayPass(err) {
				d.broke(client)
			}
			return err
		}
		return nil
	})
	if err != nil {
		return nbd.Run{}, err
	}
	return d.runs[0], nil
}
