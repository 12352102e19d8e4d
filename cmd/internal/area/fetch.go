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
	"flatimg/cmd/internal/servers/transfer"
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
	// resumed is how much data of it an earlier run has fetched; received
	// counts what has come since.
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
	hashed := f.arrived
	if f.resumed, err = dataBefore(ctx, f.from, hashed); err != nil {
		return nil, err
	}
	f.meter.Start("fetching", f.data)
	f.meter.Skip(f.resumed)
	if err := f.file.Truncate(f.arrived); err != nil {
		return nil, err
	}
	if f.size >= 0 {
		if err := f.file.Truncate(f.size); err != nil {
			return nil, err
		}
	}
	f.grown = make(chan struct{}, 1)
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(f.grown)
		return f.fetch(groupCtx)
	})
	// When the line breaks, what has arrived is hashed all the same: only that
	// can be gone on with.
	group.Go(func() error { return f.hashBehind(ctx, h, hashed) })
	err = group.Wait()
	f.job.flush()
	if err != nil || !f.whole {
		return nil, err
	}
	return h.Sum(nil), nil
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
	done := f.resumed + f.received.Load()
	f.job.update(mainFile, false, func(r *fileRecord) { r.Fetched, r.Done = off, done })
}

// part is a range of the file in bytes; a negative length goes to its end.
type part struct{ off, length int64 }

// fetch fetches all ranges of data.
func (f *fetch) fetch(ctx context.Context) error {
	if f.size < 0 {
		w := f.writer(ctx, f.arrived)
		w.moved = func(off int64) {
			f.file.Truncate(off) // zeros at the end were not written
			f.advance(off)
		}
		if err := f.try(ctx, part{f.arrived, -1}, w); err != nil {
			return err
		}
		return f.file.Truncate(w.off)
	}
	type begun struct {
		part
		*transfer.Pending
	}
	parts := make(chan begun)
	front := &transfer.Front{Advance: f.advance}
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
	return eachRunAt(ctx, f.from, f.arrived, f.size, func(start, end int64) error {
		for ; start < end; start += most {
			if err := do(part{start, min(most, end-start)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachRunAt calls do for the runs of data in [from, to) of a file at a server, in
// order, as far as the server tells where it has data.
func eachRunAt(ctx context.Context, at servers.Download, from, to int64, do func(start, end int64) error) error {
	s, ok := at.(servers.Sparse)
	if !ok {
		return do(from, to)
	}
	for from < to {
		start, end, err := s.NextData(ctx, from)
		if err != nil {
			return err
		}
		if end = min(end, to); start < end {
			if err := do(start, end); err != nil {
				return err
			}
		}
		from = max(start, end)
	}
	return nil
}

// dataBefore returns how many bytes of data a file at a server has before an
// offset.
func dataBefore(ctx context.Context, at servers.Download, off int64) (sum int64, err error) {
	err = eachRunAt(ctx, at, 0, off, func(start, end int64) error {
		sum += end - start
		return nil
	})
	return sum, err
}

// try fetches a range, again from where it broke off when that may pass.
func (f *fetch) try(ctx context.Context, p part, w *sparseWriter) error {
	r := transfer.NewRetrier(servers.Options{Retries: f.retries})
	r.Say = func(format string, args ...any) { f.meter.Say(fmt.Sprintf(format, args...)) }
	for {
		length := p.length
		if length >= 0 {
			length = max(0, length-(w.off-p.off))
		}
		if length == 0 {
			return nil
		}
		before := w.off
		err := f.from.Read(ctx, w, w.off, length)
		w.tell()
		if err == nil && p.length >= 0 && w.off < p.off+p.length {
			err = &cli.Error{Err: fmt.Errorf("%s: %w at offset %#x", f.from, io.ErrUnexpectedEOF, w.off), Code: cli.ExitServer}
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
	if was == nil || f.size >= 0 && was.Offset > f.size {
		return h, nil
	}
	f.meter.Start("verifying what was fetched before", f.data)
	err := f.hash(ctx, h, 0, was.Offset, func(_, n int64) { f.meter.Add(n) })
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		f.meter.Say(fmt.Sprintf("what was fetched before is damaged: %v: the import begins anew", err))
		return sha256.New(), nil
	case !bytes.Equal(marshalHash(h), was.State):
		f.meter.Say("what was fetched before is damaged: the import begins anew")
		return sha256.New(), nil
	}
	f.arrived = was.Offset
	return h, nil
}

// hash hashes what is in the file in [from, to); of one that is mostly holes its
// data only. It calls told with the offset that it has come to, and the number
// of bytes since the last call.
func (f *fetch) hash(ctx context.Context, h hash.Hash, from, to int64, told func(off, n int64)) error {
	buf := make([]byte, hashStep)
	read := func(off, end int64) error {
		for off < end {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := min(hashStep, end-off)
			if k, err := f.file.ReadAt(buf[:n], off); int64(k) < n {
				return fmt.Errorf("read to hash, at offset %#x: %w", off, err)
			}
			h.Write(buf[:n])
			off += n
			told(off, n)
		}
		return nil
	}
	if f.whole {
		return read(from, to)
	}
	return eachRunAt(ctx, f.from, from, to, read)
}

func marshalHash(h hash.Hash) []byte {
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic("area: internal error: " + err.Error())
	}
	return state
}

// hashBehind hashes the file with h, from offset off on, as it grows.
func (f *fetch) hashBehind(ctx context.Context, h hash.Hash, off int64) error {
	noted := off
	note := func(atOnce bool) {
		noted = off
		state := hashState{off, marshalHash(h)}
		f.job.update(mainFile, atOnce, func(r *fileRecord) { r.Hash = &state })
	}
	defer func() { note(true) }()
	for isOpen := true; isOpen; {
		_, isOpen = <-f.grown
		f.mu.Lock()
		arrived := f.arrived
		f.mu.Unlock()
		if err := f.hash(ctx, h, off, arrived, func(at, _ int64) {
			if off = at; off-noted >= stateEvery {
				note(false)
			}
		}); err != nil {
			return err
		}
		off = arrived // a hole may be before it
	}
	return nil
}

// checkSum compares the file with a checksum that the server knows, and returns
// who has computed it; empty: it knows none.
func (f *fetch) checkSum(ctx context.Context, sum []byte, size int64) (by string, err error) {
	s, ok := f.from.(servers.Summer)
	if !ok || !f.whole {
		return "", nil // of a file that is mostly holes it would take long
	}
	f.meter.Start("asking the server for its checksum", 0)
	want, err := s.Checksum(ctx)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return "", nil
	case err != nil:
		return "", err
	}
	if want.Algorithm != "sha256" || !want.IsWhole() {
		if sum, err = f.otherSum(ctx, want, size); err != nil || sum == nil {
			return "", err
		}
	}
	if !bytes.Equal(sum, want.Sum) {
		return "", &cli.Error{
			Err:  fmt.Errorf("%s: %w: the checksum here is %x, that of the server %x (%s)", f.from, transfer.ErrDiffers, sum, want.Sum, want.By),
			Hint: "import it again",
			Code: cli.ExitServer,
		}
	}
	return want.By, nil
}

// otherSum returns the checksum of the file that is to be compared with want, nil
// when its algorithm is not known here.
func (f *fetch) otherSum(ctx context.Context, want servers.Checksum, size int64) ([]byte, error) {
	newHash := map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New, "md5": md5.New}[want.Algorithm]
	if newHash == nil {
		return nil, nil
	}
	f.meter.Start("verifying", size)
	if want.PartSize > 0 {
		all := newHash()
		for off := int64(0); off < size; off += want.PartSize {
			sum, err := f.sumOf(ctx, newHash(), off, min(off+want.PartSize, size))
			if err != nil {
				return nil, err
			}
			all.Write(sum)
		}
		return all.Sum(nil), nil
	}
	h := newHash()
	h.Write(want.Before)
	if _, err := f.sumOf(ctx, h, 0, size); err != nil {
		return nil, err
	}
	h.Write(want.After)
	return h.Sum(nil), nil
}

// sumOf hashes the bytes [from, to) of the file with h.
func (f *fetch) sumOf(ctx context.Context, h hash.Hash, from, to int64) ([]byte, error) {
	part := &hasher{src: &source{File: f.file, size: to}, h: h, off: from, buf: make([]byte, hashStep), counted: f.meter.Add}
	return part.sum(ctx)
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
