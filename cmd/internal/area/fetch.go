package area

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
)

// fetchChunk is what one lane fetches at a time, in bytes: enough that the
// requests cost nothing, little enough that a kill costs little.
const fetchChunk = 16 << 20

// fetch brings a file from a server into a file of the area.
type fetch struct {
	// Read only.
	from    servers.Download
	file    *os.File
	job     *job
	meter   *progress.Meter
	limiter *rate.Limiter
	retries int
	lanes   int
	// size in bytes is -1 when the server does not tell; data is what of it will
	// come, 0 when that is not known.
	size, data int64
	// whole: the file is hashed.
	whole bool

	// arrived is the offset before which all is in the file; protected by mu.
	mu      sync.Mutex
	arrived int64
	// resumed is what of it an earlier run has fetched; received counts what
	// has come since.
	resumed  int64
	received atomic.Int64
	// grown gets a value when arrived has grown; it is closed at the end.
	grown chan struct{}
}

// run fetches what an earlier run has not, and returns the SHA-256 of the whole;
// nil when the file is mostly holes.
func (f *fetch) run(ctx context.Context) (sum []byte, err error) {
	h, err := f.goOn(ctx)
	if err != nil {
		return nil, err
	}
	f.resumed = f.arrived
	f.meter.Start("fetching", f.data)
	f.meter.Skip(f.arrived)
	if err := f.file.Truncate(f.arrived); err != nil {
		return nil, err
	}
	if f.size >= 0 {
		if err := f.file.Truncate(f.size); err != nil {
			return nil, err
		}
	}
	f.grown = make(chan struct{}, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(f.grown)
		return f.fetch(ctx)
	})
	if f.whole {
		group.Go(func() (err error) {
			sum, err = f.hashBehind(ctx, h)
			return err
		})
	}
	err = group.Wait()
	f.job.flush()
	return sum, err
}

// advance says that all before off is in the file.
func (f *fetch) advance(off int64) {
	f.mu.Lock()
	f.arrived = off
	f.mu.Unlock()
	select {
	case f.grown <- struct{}{}:
	default:
	}
	f.job.update(mainFile, false, func(r *fileRecord) { r.Fetched, r.Done = off, off })
}

// part is a range of the file in bytes; a negative length goes to its end.
type part struct{ off, length int64 }

// fetch fetches all ranges of data.
func (f *fetch) fetch(ctx context.Context) error {
	if f.size < 0 {
		w := f.writer(ctx, f.arrived)
		w.moved = f.advance
		if err := f.try(ctx, part{f.arrived, -1}, w); err != nil {
			return err
		}
		return f.file.Truncate(w.off)
	}
	type begun struct {
		part
		*servers.Pending
	}
	parts := make(chan begun)
	front := &servers.Front{Advance: f.advance}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(parts)
		return f.eachPart(ctx, func(p part) error {
			select {
			case parts <- begun{p, front.Begin(p.off + p.length)}:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	for range f.lanes {
		group.Go(func() error {
			for p := range parts {
				w := f.writer(ctx, p.off)
				if f.lanes == 1 {
					w.moved = f.advance
				}
				if err := f.try(ctx, p.part, w); err != nil {
					return err
				}
				front.Arrive(p.Pending)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	f.advance(f.size)
	return nil
}

// eachPart calls do for the ranges of data that have not arrived, in order. One
// lane fetches each in one go, several share them in chunks.
func (f *fetch) eachPart(ctx context.Context, do func(part) error) error {
	most := f.size
	if f.lanes > 1 {
		most = fetchChunk
	}
	for off := f.arrived; off < f.size; {
		start, end := off, f.size
		if s, ok := f.from.(servers.Sparse); ok {
			var err error
			if start, end, err = s.NextData(ctx, off); err != nil {
				return err
			}
		}
		for ; start < end; start += most {
			if err := do(part{start, min(most, end-start)}); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}

// try fetches a range, again from where it broke off when that may pass.
func (f *fetch) try(ctx context.Context, p part, w *sparseWriter) error {
	r := servers.NewRetrier(f.retries, func(format string, args ...any) { f.meter.Say(fmt.Sprintf(format, args...)) })
	for {
		length := p.length
		if length >= 0 {
			length -= w.off - p.off
		}
		if length == 0 && p.length != 0 {
			w.tell()
			return nil
		}
		before := w.off
		err := f.from.Read(ctx, w, w.off, length)
		w.tell()
		if err == nil && p.length >= 0 && w.off != p.off+p.length {
			err = fmt.Errorf("%s: %w at offset %#x", f.from, io.ErrUnexpectedEOF, w.off)
		}
		if err == nil {
			return nil
		}
		if w.err != nil {
			return w.err // of the disk, not of the line
		}
		if w.off > before {
			r.Progress()
		}
		if err := r.Wait(ctx, "fetching "+f.from.String(), err); err != nil {
			return err
		}
	}
}

// goOn sets what has arrived in an earlier run, and returns its hash. What is in
// the file must have the checksum that it had: the machine may have gone down
// before it was on the disk.
func (f *fetch) goOn(ctx context.Context) (hash.Hash, error) {
	h := sha256.New()
	was := f.job.file(mainFile).Hash
	if was == nil || !f.whole {
		return h, nil
	}
	f.meter.Start("verifying what was fetched before", was.Offset)
	buf := make([]byte, hashStep)
	for off := int64(0); off < was.Offset; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		n := min(hashStep, was.Offset-off)
		if k, err := f.file.ReadAt(buf[:n], off); int64(k) < n {
			f.meter.Say(fmt.Sprintf("what was fetched before is damaged at offset %#x: %v: the import begins anew", off, err))
			return sha256.New(), nil
		}
		h.Write(buf[:n])
		f.meter.Add(n)
		off += n
	}
	if state := marshalHash(h); !bytes.Equal(state, was.State) {
		f.meter.Say("what was fetched before is damaged: the import begins anew")
		return sha256.New(), nil
	}
	f.arrived = was.Offset
	return h, nil
}

func marshalHash(h hash.Hash) []byte {
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic("area: internal error: " + err.Error())
	}
	return state
}

// hashBehind hashes the file with h, from what h has on, as it grows.
func (f *fetch) hashBehind(ctx context.Context, h hash.Hash) ([]byte, error) {
	off := f.resumed
	note := func(atOnce bool) {
		state := hashState{off, marshalHash(h)}
		f.job.update(mainFile, atOnce, func(r *fileRecord) { r.Hash = &state })
	}
	defer func() { note(true) }()
	buf := make([]byte, hashStep)
	for isOpen := true; ; {
		f.mu.Lock()
		arrived := f.arrived
		f.mu.Unlock()
		for off < arrived {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			n := min(hashStep, arrived-off)
			if k, err := f.file.ReadAt(buf[:n], off); int64(k) < n {
				return nil, fmt.Errorf("read to hash, at offset %#x: %w", off, err)
			}
			h.Write(buf[:n])
			if off += n; off%stateEvery == 0 {
				note(false)
			}
		}
		if !isOpen {
			return h.Sum(nil), nil
		}
		_, isOpen = <-f.grown
	}
}

// checkSum compares the file with a checksum that the server knows, and returns
// who has computed it; empty: it knows none.
func (f *fetch) checkSum(ctx context.Context, sum []byte, size int64) (by string, err error) {
	s, ok := f.from.(servers.Summer)
	if !ok {
		return "", nil
	}
	f.meter.Start("asking the server for its checksum", 0)
	want, err := s.Checksum(ctx)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return "", nil
	case err != nil:
		return "", err
	}
	if want.Algorithm != "sha256" || sum == nil {
		if sum, err = f.otherSum(ctx, want.Algorithm, size); err != nil || sum == nil {
			return "", err
		}
	}
	if !bytes.Equal(sum, want.Sum) {
		return "", &cli.Error{
			Err:  fmt.Errorf("%s: %w: the checksum here is %x, that of the server %x (%s)", f.from, servers.ErrDiffers, sum, want.Sum, want.By),
			Hint: "import it again",
			Code: cli.ExitServer,
		}
	}
	return want.By, nil
}

// otherSum returns a checksum of the file by another algorithm; nil when it is
// not known here.
func (f *fetch) otherSum(ctx context.Context, algorithm string, size int64) ([]byte, error) {
	newHash := map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New, "md5": md5.New}[algorithm]
	if newHash == nil {
		return nil, nil
	}
	f.meter.Start("verifying", size)
	h := &hasher{src: &source{File: f.file, size: size}, h: newHash(), buf: make([]byte, hashStep), counted: f.meter.Add}
	return h.sum(ctx)
}

// fetchWhole has a program write the file by itself, and hashes it afterwards.
func (f *fetch) fetchWhole(ctx context.Context, from servers.Fetcher) ([]byte, error) {
	// From now on something may be there that a later run can go on with.
	if err := f.job.update(mainFile, true, func(r *fileRecord) { r.Fetched = max(r.Fetched, 1) }); err != nil {
		return nil, err
	}
	f.meter.Start("fetching", f.data)
	got := func(n int64) {
		f.received.Add(n)
		f.meter.Add(n)
	}
	if err := from.Fetch(ctx, f.file.Name(), got); err != nil {
		return nil, err
	}
	size, err := f.file.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	f.meter.Start("verifying", size)
	h := newHasher(&source{File: f.file, size: size}, nil)
	h.counted = f.meter.Add
	return h.sum(ctx)
}
