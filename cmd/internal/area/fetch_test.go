package area

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// fakeDownload is a file at a server that is not there.
type fakeDownload struct {
	memorySource
	lanes   int
	unknown bool   // the size is not told
	version string // empty: "v1"
	sum     *servers.Checksum

	mu   sync.Mutex
	left int64 // bytes until reads fail with err; negative: never
	err  error
	read int64 // bytes that were read

	turns *sync.Mutex // not nil: one read after the other
}

var _ = (servers.Download)((*fakeDownload)(nil))
var _ = (servers.Summer)((*fakeDownload)(nil))

func newDownload(lanes int, size int64, runs ...[2]int64) *fakeDownload {
	return &fakeDownload{memorySource: newMemorySource(size, runs...), lanes: lanes, left: -1}
}

func (d *fakeDownload) Size() int64 {
	if d.unknown {
		return -1
	}
	return d.memorySource.Size()
}

func (d *fakeDownload) Version() string { return "v1" + d.version }
func (d *fakeDownload) Lanes() int      { return d.lanes }
func (d *fakeDownload) Close() error    { return nil }
func (d *fakeDownload) String() string  { return "fake://host/disk.raw" }

func (d *fakeDownload) Checksum(context.Context) (servers.Checksum, error) {
	if d.sum == nil {
		return servers.Checksum{}, errors.ErrUnsupported
	}
	return *d.sum, nil
}

func (d *fakeDownload) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = d.memorySource.Size() - off
	}
	if d.turns != nil {
		d.turns.Lock()
		defer d.turns.Unlock()
	}
	buf := make([]byte, 100_003)
	for length > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n := min(length, int64(len(buf)))
		d.mu.Lock()
		if d.left >= 0 {
			n = min(n, d.left)
			d.left -= n
		}
		err := d.err
		d.read += n
		d.mu.Unlock()
		if n == 0 {
			return err
		}
		d.ReadAt(buf[:n], off)
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		off += n
		length -= n
	}
	return nil
}

// sparseDownload knows where it has data.
type sparseDownload struct{ *fakeDownload }

var _ = (servers.Sparse)(sparseDownload{})

func (d sparseDownload) NextData(_ context.Context, off int64) (start, end int64, err error) {
	return d.memorySource.NextData(off)
}

// fetched is a file of a job into which it is fetched.
type fetched struct {
	job  *job
	file *os.File
}

func newFetched(t *testing.T) fetched {
	t.Helper()
	j := mustJob(t, t.TempDir(), Request{Import: true, Image: "/x", URL: "fake://host/disk.raw"})
	t.Cleanup(func() { j.remove() })
	f, err := j.create(fetchedName)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return fetched{j, f}
}

func (f fetched) fetch(from servers.Download, whole bool) *fetch {
	return &fetch{from: from, file: f.file, job: f.job, retries: -1, lanes: from.Lanes(), size: from.Size(), whole: whole}
}

// TestFetch fetches in one go, and in many runs each of which is cut.
func TestFetch(t *testing.T) {
	const size = 50<<20 + 17
	content := newMemorySource(size, [2]int64{5000, 7 << 20}, [2]int64{20 << 20, 45 << 20}, [2]int64{size - 3, size})
	want := content.bytes()
	wantSum := sha256.Sum256(want)
	for _, lanes := range []int{1, 4} {
		for _, kind := range []string{"sparse", "mostly holes", "plain", "size unknown"} {
			for _, cut := range []int64{-1, 15<<20 - 5} {
				if kind == "size unknown" && lanes > 1 {
					continue
				}
				t.Run(fmt.Sprintf("%d lanes, %s, cut after %d", lanes, kind, cut), func(t *testing.T) {
					d := &fakeDownload{memorySource: content, lanes: lanes, left: -1}
					d.unknown = kind == "size unknown"
					d.err = &cli.Error{Err: syscall.ECONNRESET, Code: cli.ExitServer}
					if cut >= 0 && lanes > 1 {
						d.turns = &sync.Mutex{}
						cut += fetchChunk // else nothing would be complete
					}
					var from servers.Download = d
					if kind == "sparse" || kind == "mostly holes" {
						from = sparseDownload{d}
					}
					to := newFetched(t)
					whole := kind != "mostly holes"
					var sum []byte
					err := d.err
					tries := 0
					for ; err != nil && tries < 100; tries++ {
						d.left = cut
						f := to.fetch(from, whole)
						if sum, err = f.run(t.Context()); err != nil && !errors.Is(err, syscall.ECONNRESET) {
							t.Fatal(err)
						}
						if got := f.resumed; tries > 0 && lanes == 1 && got == 0 {
							t.Fatalf("try %d begins anew", tries)
						}
						// What a kill leaves: what is not in the record may be anything.
						to.job.record = roundTrip(t, to.job.record)
						fi, e := to.file.Stat()
						if e != nil {
							t.Fatal(e)
						}
						if at := to.job.file(mainFile).Hash.Offset; err != nil && at < fi.Size() {
							to.file.WriteAt(randomBytes(99, int(min(fi.Size()-at, 1<<20))), at)
						}
					}
					if err != nil {
						t.Fatalf("after %d tries: %v", tries, err)
					}
					if (tries > 1) != (cut >= 0) {
						t.Errorf("%d tries", tries)
					}
					checkContent(t, to.file, want)
					if whole && !bytes.Equal(sum, wantSum[:]) {
						t.Errorf("SHA-256 %x, want %x", sum, wantSum)
					}
					if !whole && sum != nil {
						t.Error("a file that is mostly holes is hashed")
					}
					if from != servers.Download(d) {
						checkHole(t, to.file, 8<<20, 20<<20)
					}
					if r := to.job.file(mainFile); r.Fetched != size {
						t.Errorf("record %+v", r)
					}
					data := int64(size)
					if from != servers.Download(d) {
						data = 7<<20 - 5000 + 25<<20 + 3
					}
					if cut < 0 && d.read != data || lanes == 1 && d.read > data {
						t.Errorf("%d bytes were read, %d are data", d.read, data)
					}
				})
			}
		}
	}
}

func roundTrip(t *testing.T, r *record) *record {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	again := &record{}
	if err := json.Unmarshal(b, again); err != nil {
		t.Fatal(err)
	}
	return again
}

// TestFetchKeepsStates: with one lane, too, whose progress is at odd offsets, a
// kill costs little.
func TestFetchKeepsStates(t *testing.T) {
	d := newDownload(1, 100<<20+5, [2]int64{0, 100<<20 + 5})
	d.left, d.err = 33<<20+12345, &cli.Error{Err: syscall.EPIPE, Code: cli.ExitServer}
	to := newFetched(t)
	to.fetch(d, true).run(t.Context())
	d.left = 40<<20 + 1
	var states []int64
	last := to.job.file(mainFile).Hash.Offset
	noted := func() {
		for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
			if off := to.job.file(mainFile).Hash.Offset; off > last {
				last = off
				states = append(states, last)
				return
			}
		}
		t.Errorf("no state after %d", last)
	}
	to.fetch(&waiting{d, noted}, true).run(t.Context())
	noted()
	if last < 33<<20+12345+40<<20 || len(states) < 3 {
		t.Errorf("states at %v", states)
	}
}

// waiting is a download that calls wait when 16 MiB have come.
type waiting struct {
	*fakeDownload
	wait func()
}

func (d *waiting) Read(ctx context.Context, w io.Writer, off, length int64) error {
	const part = 16 << 20
	for ; length > part; off, length = off+part, length-part {
		if err := d.fakeDownload.Read(ctx, w, off, part); err != nil {
			return err
		}
		d.wait()
	}
	return d.fakeDownload.Read(ctx, w, off, length)
}

// TestFetchDamaged: what is in the area's file must be what was fetched.
func TestFetchDamaged(t *testing.T) {
	const size = 12 << 20
	for name, damage := range map[string]func(f fetched) error{
		"a byte":    func(f fetched) error { _, err := f.file.WriteAt([]byte{1, 2, 3}, 5<<20); return err },
		"cut off":   func(f fetched) error { return f.file.Truncate(1 << 20) },
		"the state": func(f fetched) error { f.job.record.Files[mainFile].Hash.State[20]++; return nil },
		"the place": func(f fetched) error { f.job.record.Files[mainFile].Hash.Offset -= 64; return nil },
		"too far":   func(f fetched) error { f.job.record.Files[mainFile].Hash.Offset = size + 1; return nil },
		"no state":  func(f fetched) error { f.job.record.Files[mainFile].Hash = nil; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDownload(1, size, [2]int64{0, size})
			d.left, d.err = 10<<20, &cli.Error{Err: syscall.EPIPE, Code: cli.ExitServer}
			to := newFetched(t)
			if _, err := to.fetch(d, true).run(t.Context()); err == nil {
				t.Fatal("not cut")
			}
			if err := damage(to); err != nil {
				t.Fatal(err)
			}
			d.left = -1
			f := to.fetch(d, true)
			if _, err := f.run(t.Context()); err != nil || f.resumed != 0 {
				t.Errorf("%v, %d bytes resumed", err, f.resumed)
			}
			checkContent(t, to.file, d.bytes())
		})
	}
}

// TestFetchRetries: within a run it goes on where it broke off.
func TestFetchRetries(t *testing.T) {
	for _, lanes := range []int{1, 4} {
		d := newDownload(lanes, 40<<20, [2]int64{0, 40 << 20})
		d.left, d.err = 7<<20, &cli.Error{Err: syscall.ECONNRESET, Code: cli.ExitServer}
		f := newFetched(t).fetch(&healing{fakeDownload: d}, true)
		f.retries = 5
		if _, err := f.run(t.Context()); err != nil {
			t.Errorf("%d lanes: %v", lanes, err)
		}
		checkContent(t, f.file, d.bytes())
		if d.read != 40<<20 {
			t.Errorf("%d lanes: %d bytes were read", lanes, d.read)
		}
	}
}

// healing is a download that fails once.
type healing struct {
	*fakeDownload
	once sync.Once
}

func (h *healing) Read(ctx context.Context, w io.Writer, off, length int64) error {
	err := h.fakeDownload.Read(ctx, w, off, length)
	if err != nil {
		h.once.Do(func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.left = -1
		})
	}
	return err
}

// TestFetchShort: a server that sends less than it said.
func TestFetchShort(t *testing.T) {
	d := newDownload(1, 1<<20, [2]int64{0, 1 << 20})
	d.left = 1000 // then no error
	_, err := newFetched(t).fetch(d, true).run(t.Context())
	if !errors.Is(err, io.ErrUnexpectedEOF) || cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("%v, exit code %d", err, cli.ExitCode(err))
	}
}

// TestFetchDiskFull: the error is that of the disk, and is not tried again.
func TestFetchDiskFull(t *testing.T) {
	d := newDownload(4, 8<<20, [2]int64{0, 8 << 20})
	to := newFetched(t)
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	f := to.fetch(d, false)
	f.retries, f.grown = 100, make(chan struct{}, 1)
	f.file = full
	w := f.writer(t.Context(), 0)
	if err := f.try(t.Context(), part{0, 8 << 20}, w); !errors.Is(err, syscall.ENOSPC) || cli.ExitCode(err) != cli.ExitNoSpace {
		t.Errorf("%v, exit code %d", err, cli.ExitCode(err))
	}
}

func TestFetchInterrupted(t *testing.T) {
	checkLeaks(t)
	d := newDownload(4, 40<<20, [2]int64{0, 40 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	f := newFetched(t).fetch(&stopping{d, cancel}, true)
	if _, err := f.run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// stopping is a download that is interrupted in its second part.
type stopping struct {
	*fakeDownload
	cancel func()
}

func (s *stopping) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if off > 0 {
		s.cancel()
		<-ctx.Done()
	}
	return s.fakeDownload.Read(ctx, w, off, length)
}

func TestCheckSum(t *testing.T) {
	d := newDownload(1, 3<<20, [2]int64{0, 3 << 20})
	to := newFetched(t)
	f := to.fetch(d, true)
	sum, err := f.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	right := md5.Sum(d.bytes())
	first, second := md5.Sum(d.bytes()[:2_000_000]), md5.Sum(d.bytes()[2_000_000:])
	parts := md5.Sum(append(first[:], second[:]...))
	around := sha256.Sum256(slices.Concat([]byte("head"), d.bytes(), []byte("end")))
	for _, c := range []struct {
		sum   *servers.Checksum
		by    string
		wrong bool
	}{
		{nil, "", false},
		{&servers.Checksum{Algorithm: "sha256", Sum: sum, By: "somebody"}, "somebody", false},
		{&servers.Checksum{Algorithm: "md5", Sum: right[:], By: "rsync"}, "rsync", false},
		{&servers.Checksum{Algorithm: "crc32", Sum: []byte{1, 2, 3, 4}, By: "x"}, "", false},
		{&servers.Checksum{Algorithm: "md5", Sum: parts[:], By: "parts", PartSize: 2_000_000}, "parts", false},
		{&servers.Checksum{Algorithm: "md5", Sum: parts[:], By: "parts", PartSize: 2_000_001}, "", true},
		{&servers.Checksum{Algorithm: "sha256", Sum: around[:], By: "layer", Before: []byte("head"), After: []byte("end")}, "layer", false},
		{&servers.Checksum{Algorithm: "sha256", Sum: sum, By: "layer", After: []byte("end")}, "", true},
		{&servers.Checksum{Algorithm: "sha256", Sum: right[:], By: "x"}, "", true},
		{&servers.Checksum{Algorithm: "md5", Sum: sum, By: "x"}, "", true},
		{&servers.Checksum{Algorithm: "sha512", Sum: nil, By: "x"}, "", true},
	} {
		d.sum = c.sum
		by, err := f.checkSum(t.Context(), sum, 3<<20)
		if by != c.by || errors.Is(err, transfer.ErrDiffers) != c.wrong || c.wrong && cli.ExitCode(err) != cli.ExitServer {
			t.Errorf("%+v: %q, %v", c.sum, by, err)
		}
	}
}

// TestSparseWriter writes pieces of any length.
func TestSparseWriter(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	want := newMemorySource(3<<20, [2]int64{70_000, 80_000}, [2]int64{1 << 20, 2 << 20}).bytes()
	f := newFile(t, t.TempDir())
	var moved []int64
	got := int64(0)
	w := &sparseWriter{ctx: t.Context(), file: f, got: func(n int64) { got += n }, moved: func(off int64) { moved = append(moved, off) }}
	for rest := want; len(rest) > 0; {
		n := min(1+r.IntN(200_000), len(rest))
		if k, err := w.Write(rest[:n]); k != n || err != nil {
			t.Fatal(k, err)
		}
		rest = rest[n:]
	}
	w.tell()
	w.tell()
	if err := f.Truncate(int64(len(want))); err != nil {
		t.Fatal(err)
	}
	checkContent(t, f, want)
	checkHole(t, f, 2<<20, 1<<40)
	if got != 3<<20 || len(moved) != 1 || moved[0] != 3<<20 {
		t.Errorf("%d bytes, moved %v", got, moved)
	}
}

func TestReportString(t *testing.T) {
	for _, c := range []struct {
		r    Report
		want string
	}{
		{Report{}, ""},
		{Report{Sent: 5}, "not verified"},
		{Report{Resumed: 5}, "not verified"},
		{Report{Resumed: 5, Import: true}, "not verified: the server tells no checksum)"},
		{Report{Sent: 5, VerifiedBy: "somebody"}, "(verified: somebody)"},
		{Report{VerifiedBy: "compared with the view"}, "(verified: compared with the view)"},
	} {
		got := c.r.String()
		if !strings.Contains(got, c.want) || c.want == "" && strings.Contains(got, "verified") {
			t.Errorf("%+v: %s", c.r, got)
		}
	}
}
