package servers

import (
	"context"
	"io"
	"slices"
	"sync"

	"flatimg/cmd/internal/nbd"
)

// nbdDownload reads an NBD export. Nobody tells whether it is the same in a
// later run.
type nbdDownload struct {
	*nbdServer
	size    int64
	retrier *retrier

	// The runs of the last two answers about holes: two may walk over them,
	// one behind the other.
	mu           sync.Mutex
	runs, before []nbd.Run
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
	return d.read(ctx, w, off, length)
}

// nbdAhead is how many chunks one reader has asked for at a time.
const nbdAhead = nbdInFlight / nbdConnections

// read writes a range to w, over the present connection.
func (s *nbdServer) read(ctx context.Context, w io.Writer, off, length int64) error {
	client, err := s.connected(ctx)
	if err != nil {
		return err
	}
	p := pipeline{src: nbdReader{ctx, client}, requests: nbdAhead, chunk: nbdChunk}
	if err := p.read(ctx, w, off, length); err != nil {
		return s.failed(ctx, client, "read", err)
	}
	return nil
}

// nbdReader reads while ctx lasts.
type nbdReader struct {
	ctx    context.Context
	client *nbd.Client
}

// ReadAt implements [io.ReaderAt].
func (r nbdReader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.client.ReadAt(r.ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
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
	for _, runs := range [][]nbd.Run{d.runs, d.before} {
		i, found := slices.BinarySearchFunc(runs, off, func(r nbd.Run, off int64) int {
			switch {
			case r.Offset+r.Length <= off:
				return -1
			case r.Offset > off:
				return 1
			}
			return 0
		})
		if found {
			r := runs[i]
			return nbd.Run{Offset: off, Length: r.Offset + r.Length - off, Zero: r.Zero}, nil
		}
	}
	err := d.retrier.do(ctx, "ask for holes", func() error {
		client, err := d.connected(ctx)
		if err != nil {
			return err
		}
		runs, err := client.BlockStatus(ctx, off, min(d.size-off, 1<<30))
		if err != nil {
			return d.failed(ctx, client, "ask for holes", err)
		}
		d.runs, d.before = runs, d.runs
		return nil
	})
	if err != nil {
		return nbd.Run{}, err
	}
	return d.runs[0], nil
}
