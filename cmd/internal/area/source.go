package area

import (
	"context"
	"io"
	"iter"
	"os"
	"sync"

	"golang.org/x/time/rate"

	"flatimg/cmd/internal/servers"
	"flatimg/convert"
	"flatimg/layers"
)

// faults remembers the first error of reading a source: whoever sends it may
// take that for one of the server. Safe for concurrent use.
type faults struct {
	mu    sync.Mutex
	first error
}

// note notes err, which may be nil, and returns it.
func (f *faults) note(err error) error {
	if err != nil && err != io.EOF {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.first == nil {
			f.first = err
		}
	}
	return err
}

// fault returns the first error.
func (f *faults) fault() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first
}

// source is a complete file of the area, to be sent.
type source struct {
	*os.File
	size int64
	faults
	seeking sync.Mutex // protects the position of the descriptor
}

var _ = (servers.Source)((*source)(nil))
var _ = (servers.FileRanges)((*source)(nil))

// Size implements [servers.Source].
func (s *source) Size() int64 { return s.size }

// NextData implements [servers.Source].
func (s *source) NextData(off int64) (start, end int64, err error) {
	s.seeking.Lock()
	defer s.seeking.Unlock()
	start, end, err = nextData(s.File, off, s.size)
	return start, end, s.note(err)
}

// ReadAt implements [io.ReaderAt].
func (s *source) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.File.ReadAt(p, off)
	return n, s.note(err)
}

// Path is for programs that send files by themselves.
func (s *source) Path() string { return s.Name() }

// FileRanges implements [servers.FileRanges].
func (s *source) FileRanges(off, length int64, f func(file *os.File, at, length int64) error) error {
	return f(s.File, off, length)
}

// view is a target, to be sent as it is computed.
type view struct {
	convert.Target
	faults

	// The iteration over the runs of data, which costs less to go on with than
	// to begin anew.
	walking sync.Mutex // protects the following
	next    func() (convert.Run, error, bool)
	stop    func()
	run     convert.Run // the last one; Length 0: none
}

var _ = (servers.Source)((*view)(nil))
var _ = (servers.FileRanges)((*view)(nil))

// ReadAt implements [io.ReaderAt].
func (v *view) ReadAt(p []byte, off int64) (int, error) {
	n, err := convert.ReadAt(v.Target, p, off)
	return n, v.note(err)
}

// NextData implements [servers.Source].
func (v *view) NextData(off int64) (start, end int64, err error) {
	v.walking.Lock()
	defer v.walking.Unlock()
	size := v.Size()
	if off >= size {
		return size, size, nil
	}
	if v.next == nil || off < v.run.Offset {
		v.rewind(off)
	}
	for v.run.Offset+v.run.Length <= off {
		run, err, ok := v.next()
		if err != nil {
			v.next = nil
			return 0, 0, v.note(err)
		}
		if !ok {
			v.run = convert.Run{Offset: size}
			return size, size, nil
		}
		v.run = run
	}
	return max(off, v.run.Offset), v.run.Offset + v.run.Length, nil
}

// rewind begins the iteration anew at off.
func (v *view) rewind(off int64) {
	if v.stop != nil {
		v.stop()
	}
	v.next, v.stop = iter.Pull2(convert.DataRuns(v.Target, off))
	v.run = convert.Run{Offset: off}
}

// FileRanges implements [servers.FileRanges].
func (v *view) FileRanges(off, length int64, f func(file *os.File, at, length int64) error) error {
	segments, err := v.AppendSegments(nil, off, length)
	if err != nil {
		return v.note(err)
	}
	// Small pieces are cheaper to copy together than to send one by one.
	rest := int64(0)
	flush := func() error {
		n := rest
		rest = 0
		if n == 0 {
			return nil
		}
		return f(nil, 0, n)
	}
	for _, s := range segments {
		if s.Origin != layers.InFile || s.Length < minFileRange || s.File.OSFile() == nil {
			rest += s.Length
			continue
		}
		if err := flush(); err != nil {
			return err
		}
		if err := f(s.File.OSFile(), s.Offset, s.Length); err != nil {
			return err
		}
	}
	return flush()
}

// minFileRange in bytes: less is copied through memory.
const minFileRange = 64 << 10

// close ends the iteration.
func (v *view) close() {
	v.walking.Lock()
	defer v.walking.Unlock()
	if v.stop != nil {
		v.stop()
		v.stop, v.next = nil, nil
	}
}

// limited is a source that is read no faster than a limiter allows.
type limited struct {
	servers.Source
	ctx context.Context
	*rate.Limiter
}

// limiterBurst in bytes is the most that is read at once.
const limiterBurst = 1 << 20

// newLimiter returns a limiter for n bytes a second; nil for 0, which means any
// number.
func newLimiter(n int64) *rate.Limiter {
	if n == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(n), limiterBurst)
}

// limit returns src as a source that l limits while ctx lasts.
func limit(ctx context.Context, src servers.Source, l *rate.Limiter) servers.Source {
	if l == nil {
		return src
	}
	return limited{src, ctx, l}
}

// ReadAt implements [io.ReaderAt].
func (l limited) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n := min(len(p)-done, limiterBurst)
		if err := l.WaitN(l.ctx, n); err != nil {
			return done, err
		}
		k, err := l.Source.ReadAt(p[done:done+n], off+int64(done))
		done += k
		if k < n {
			return done, err
		}
	}
	return done, nil
}

// Path is that of the source, for programs that send files by themselves; empty
// for others.
func (l limited) Path() string {
	if p, ok := l.Source.(interface{ Path() string }); ok {
		return p.Path()
	}
	return ""
}
