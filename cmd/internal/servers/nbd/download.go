package nbd

import (
	"context"
	"io"
	"slices"
	"sync"

	"flatimg/cmd/internal/nbd"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// ahead is how many chunks one reader has asked for at a time.
const ahead = inFlight / defaultConnections

// download reads an NBD export. Nobody tells whether it is the same in a later
// run.
type download struct {
	*server
	size    int64
	retrier *transfer.Retrier

	// The runs of the last two answers about holes: two may walk over them,
	// one behind the other.
	mu           sync.Mutex
	runs, before []nbd.Run
}

var _ = (servers.Sparse)((*download)(nil))

// OpenSource opens the export that a URL names for fetching.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	s, err := openServer(ctx, src, o, true)
	if err != nil {
		return nil, err
	}
	c, err := s.connected(ctx)
	if err != nil {
		return nil, err
	}
	return &download{server: s, size: c.Size(), retrier: transfer.NewRetrier(o)}, nil
}

func (d *download) Size() int64     { return d.size }
func (d *download) Version() string { return "" }
func (d *download) Lanes() int      { return defaultConnections }
func (d *download) Close() error    { return d.close() }

// Read implements [servers.Download].
func (d *download) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = d.size - off
	}
	return d.read(ctx, w, off, length)
}

// read writes a range to w, over the present connection.
func (s *server) read(ctx context.Context, w io.Writer, off, length int64) error {
	client, err := s.connected(ctx)
	if err != nil {
		return err
	}
	p := transfer.Pipeline{Src: reader{ctx, client}, Requests: ahead, Chunk: chunkSize}
	if err := p.Read(ctx, w, off, length); err != nil {
		return s.failed(ctx, client, "read", err)
	}
	return nil
}

// reader reads while ctx lasts.
type reader struct {
	ctx    context.Context
	client *nbd.Client
}

// ReadAt implements [io.ReaderAt].
func (r reader) ReadAt(p []byte, off int64) (int, error) {
	if err := r.client.ReadAt(r.ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// NextData implements [servers.Sparse].
func (d *download) NextData(ctx context.Context, off int64) (start, end int64, err error) {
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
func (d *download) runAt(ctx context.Context, off int64) (nbd.Run, error) {
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
	err := d.retrier.Do(ctx, "ask for holes", func() error {
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
