package imageio

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/blake2b"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// fakeServer is a disk in memory behind the API of ovirt-imageio. What was not
// flushed is lost when it fails with 500, as after a crash of its server.
type fakeServer struct {
	options string
	allow   string
	// fault, which may be nil, answers a request itself; counted from 1.
	fault func(n int, w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests int
	zeroes   []web.Piece
	disk     []byte
	flushed  []byte
}

const allFeatures = `{"features": ["checksum", "extents", "flush", "zero"], "max_readers": 8, "max_writers": 8, "transfer_format": "raw", "virtual_size": %d}`

// newFake returns a server whose disk is full of old data, and its URL.
func newFake(t *testing.T, size int64) (*fakeServer, string) {
	t.Helper()
	f := &fakeServer{options: fmt.Sprintf(allFeatures, size), allow: "OPTIONS,GET,PUT,PATCH", disk: bytes.Repeat([]byte("old "), int(size/4+1))[:size]}
	f.flushed = bytes.Clone(f.disk)
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return f, "imageio+" + s.URL + "/images/3ee0c53d-0c73"
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests++
	n, fault := f.requests, f.fault
	f.mu.Unlock()
	if fault != nil && fault(n, w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !strings.HasPrefix(r.URL.Path, "/images/3ee0c53d-0c73"):
		http.Error(w, "No such ticket: "+r.URL.Path[8:], http.StatusForbidden)
	case r.Method == "OPTIONS":
		w.Header().Set("Allow", f.allow)
		io.WriteString(w, f.options)
	case r.Method == "GET" && strings.HasSuffix(r.URL.Path, "/extents"):
		f.extents(w)
	case r.Method == "GET" && strings.HasSuffix(r.URL.Path, "/checksum"):
		h, _ := blake2b.New256(nil)
		for off := 0; off < len(f.disk); off += blockSize {
			sum := blake2b.Sum256(f.disk[off:min(len(f.disk), off+blockSize)])
			h.Write(sum[:])
		}
		fmt.Fprintf(w, `{"algorithm": "blake2b", "block_size": %d, "checksum": "%x"}`, blockSize, h.Sum(nil))
	case r.Method == "GET":
		var start, last int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &start, &last)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, last, len(f.disk)))
		w.WriteHeader(http.StatusPartialContent)
		w.Write(f.disk[start : last+1])
	case r.Method == "PUT":
		var start, last int64
		fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/*", &start, &last)
		if start+int64(len(body)) > int64(len(f.disk)) {
			http.Error(w, "too large", http.StatusRequestedRangeNotSatisfiable)
			return
		}
		copy(f.disk[start:], body)
	case r.Method == "PATCH":
		var m struct {
			Op           string
			Offset, Size int64
		}
		json.Unmarshal(body, &m)
		if m.Op == "zero" {
			f.zeroes = append(f.zeroes, web.Piece{Start: m.Offset, End: m.Offset + m.Size})
			clear(f.disk[m.Offset : m.Offset+m.Size])
		} else {
			f.flushed = bytes.Clone(f.disk)
		}
	}
}

// extents tells runs of 64 KiB.
func (f *fakeServer) extents(w io.Writer) {
	const block = 64 << 10
	var all []map[string]any
	for off := 0; off < len(f.disk); off += block {
		b := f.disk[off:min(len(f.disk), off+block)]
		all = append(all, map[string]any{"start": off, "length": len(b), "zero": len(bytes.Trim(b, "\x00")) == 0, "hole": false})
	}
	json.NewEncoder(w).Encode(all)
}

// crash loses what was not flushed.
func (f *fakeServer) crash(w http.ResponseWriter) {
	f.mu.Lock()
	f.disk = bytes.Clone(f.flushed)
	f.mu.Unlock()
	http.Error(w, "crashed", http.StatusInternalServerError)
}

func TestImageio(t *testing.T) {
	t.Parallel()
	src := servertest.SparseSource(20<<20+5, 21)
	want := append(servertest.Content(t, src), make([]byte, 4<<20)...)
	data, _ := transfer.DataSize(src)
	for _, c := range []struct {
		what    string
		options string
		fault   func(f *fakeServer) func(int, http.ResponseWriter, *http.Request) bool
	}{
		{what: "all features"},
		{what: "no features", options: "{}"},
		{what: "crashes", fault: func(f *fakeServer) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 7 || n == 15 {
					f.crash(w)
				}
				return n == 7 || n == 15
			}
		}},
		{what: "lost lines", fault: func(*fakeServer) func(int, http.ResponseWriter, *http.Request) bool {
			return func(n int, _ http.ResponseWriter, r *http.Request) bool {
				if n%3 == 0 {
					panic(http.ErrAbortHandler)
				}
				return false
			}
		}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			f, url := newFake(t, int64(len(want)))
			want := want
			if c.options != "" {
				f.options = c.options
				want = append(servertest.Content(t, src), f.disk[src.Size():]...)
			}
			if c.fault != nil {
				f.fault = c.fault(f)
			}
			log := &servertest.Log{}
			if err := export(t, t.Context(), url, servers.Options{}, src, log); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(f.disk, want) {
				t.Error("other bytes arrived")
			}
			if c.options == "" && !bytes.Equal(f.flushed, want) {
				t.Error("not flushed")
			}
			if log.SentBytes.Load() != data {
				t.Errorf("%d bytes counted, want %d", log.SentBytes.Load(), data)
			}
		})
	}
}

func TestImageioVerify(t *testing.T) {
	f, url := newFake(t, 9<<20)
	up, err := Open(t.Context(), url, servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	src := servertest.SparseSource(9<<20-100, 22)
	if err := up.Send(t.Context(), src, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(servertest.Content(t, src))
	if by, err := up.(servers.Verifier).Verify(t.Context(), sum[:]); err != nil || !strings.Contains(by, "blake2b") {
		t.Errorf("%s, %v", by, err)
	}
	f.disk[5<<20] ^= 1
	if _, err := up.(servers.Verifier).Verify(t.Context(), sum[:]); err == nil || !strings.Contains(err.Error(), "differs") {
		t.Errorf("a changed byte: %v", err)
	}
}

// The digest of 9 MiB of zeros, and of a file, as Python's hashlib and the rule
// in docs/images.md give them.
func TestBlockHash(t *testing.T) {
	for _, c := range []struct {
		src  servers.Source
		size int64
		want string
	}{
		{servertest.NewSource(0), 9 << 20, "12f2bef5c2648dd53f4e92e82725538e6e3a3adb4692d4f83c0c9c7ed80e71e3"},
		{servertest.NewSource(5<<20, servertest.Data(1<<20, 100), servertest.Data(4<<20-10, 20)), 9<<20 + 3, "7f1516de128d800d21f45ff128035a0af13af7bd1568409a30e8af217c4315ec"},
	} {
		got, err := blockHash(t.Context(), c.src, c.size)
		if err != nil || hex.EncodeToString(got) != c.want {
			t.Errorf("%x, %v; want %s", got, err, c.want)
		}
	}
}

func TestImageioResume(t *testing.T) {
	src := servertest.NewSource(60<<20, servertest.Data(0, 1<<20), servertest.Data(27<<20, 1<<20), servertest.Data(28<<20+100<<10, 300<<10), servertest.Data(59<<20, 1<<20))
	f, url := newFake(t, src.Size())
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		var start int64
		fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-", &start)
		if start >= 28<<20 {
			f.crash(w)
		}
		return start >= 28<<20
	}
	up, err := Open(t.Context(), url, servers.Options{Connections: 1, Retries: 1})
	if err != nil {
		t.Fatal(err)
	}
	up.(*upload).flushEvery = 10 << 20
	log := &servertest.Log{}
	if err := up.Send(t.Context(), src, log); !web.HasStatus(err, http.StatusInternalServerError) {
		t.Fatalf("a server that crashes: %v", err)
	}
	if err := up.Close(true); err != nil {
		t.Fatal(err)
	}
	f.fault, f.zeroes = nil, nil
	again := &servertest.Log{}
	if err := export(t, t.Context(), url, servers.Options{Resume: log.State}, src, again); err != nil {
		t.Fatal(err)
	}
	data, _ := transfer.DataSize(src)
	if log.SentBytes.Load() != again.KeptBytes.Load() || again.KeptBytes.Load()+again.SentBytes.Load() != data || again.KeptBytes.Load() == 0 {
		t.Errorf("%d bytes sent, then %d kept and %d sent of %d", log.SentBytes.Load(), again.KeptBytes.Load(), again.SentBytes.Load(), data)
	}
	if len(f.zeroes) == 0 || f.zeroes[0].Start < 10<<20 {
		t.Errorf("zeroed %v", f.zeroes)
	}
	if !bytes.Equal(f.flushed, servertest.Content(t, src)) {
		t.Error("other bytes arrived")
	}
	// Another disk.
	_, url = newFake(t, src.Size()+4096)
	if err := export(t, t.Context(), url, servers.Options{Resume: log.State}, src, again); err != nil || len(again.Said) != 1 {
		t.Errorf("another disk: %v, said %q", err, again.Said)
	}
}

// Workers that fail at the same time do not use up each other's retries.
func TestImageioBusy(t *testing.T) {
	t.Parallel()
	src := servertest.NewSource(64<<20, servertest.Data(0, 64<<20))
	f, url := newFake(t, src.Size())
	var mu sync.Mutex
	met := map[string]int{}
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		at := r.Header.Get("Content-Range")
		met[at]++
		switch {
		case r.Method != "PUT" || met[at] > 2:
			return false
		case met[at] == 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			w.WriteHeader(http.StatusOK) // before it has all
		}
		return true
	}
	log := &servertest.Log{}
	if err := export(t, t.Context(), url, servers.Options{Connections: 4, Retries: 2}, src, log); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.disk, servertest.Content(t, src)) || log.SentBytes.Load() != src.Size() {
		t.Errorf("other bytes arrived; %d bytes counted", log.SentBytes.Load())
	}
}

// keepLog tells what is kept.
type keepLog struct {
	servertest.Log
	kept chan uploadState
}

func (l *keepLog) Keep(state any) {
	select {
	case l.kept <- state.(uploadState):
	default:
	}
}

// What was lost before a flush is sent again, even when the answer that tells it
// comes after that of the flush.
func TestImageioLostBeforeFlush(t *testing.T) {
	t.Parallel()
	src := servertest.NewSource(2*pieceSize, servertest.Data(0, 2*pieceSize))
	f, url := newFake(t, src.Size())
	log := &keepLog{kept: make(chan uploadState, 9)}
	flushed := make(chan struct{})
	var lost, told sync.Once
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) (done bool) {
		switch {
		case r.Method == "PATCH":
			lost.Do(func() {
				f.mu.Lock()
				copy(f.disk, f.flushed)
				f.mu.Unlock()
				close(flushed)
			})
		case strings.HasPrefix(r.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", pieceSize)):
			told.Do(func() {
				done = true
				<-flushed
				for wait := time.After(300 * time.Millisecond); ; {
					select {
					case s := <-log.kept:
						if s.Offset == 0 {
							continue
						}
					case <-wait:
					}
					break
				}
				w.WriteHeader(http.StatusInternalServerError)
			})
		}
		return done
	}
	up, err := Open(t.Context(), url, servers.Options{Connections: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	up.(*upload).flushEvery = 1
	if err := up.Send(t.Context(), src, log); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.disk, servertest.Content(t, src)) {
		t.Error("other bytes arrived")
	}
}

// After an answer that tells a loss, nothing is sent again before all that is
// under way is answered: what fails later loses once more.
func TestImageioLostTwice(t *testing.T) {
	t.Parallel()
	src := servertest.NewSource(2*pieceSize, servertest.Data(0, 2*pieceSize))
	f, url := newFake(t, src.Size())
	begun, first, second, flushing := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	var one, other, flush atomic.Bool
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) (done bool) {
		switch at := r.Header.Get("Content-Range"); {
		case r.Method == "PATCH":
			if !flush.Swap(true) {
				close(flushing)
			}
			<-second
		case strings.HasPrefix(at, "bytes 0-"):
			if done = !one.Swap(true); done {
				io.Copy(io.Discard, r.Body)
				<-begun
				f.crash(w)
				close(first)
			}
		case strings.HasPrefix(at, fmt.Sprintf("bytes %d-", pieceSize)):
			if done = !other.Swap(true); done {
				io.Copy(io.Discard, r.Body)
				close(begun)
				<-first
				select {
				case <-r.Context().Done(): // the client has given it up
					<-flushing
				case <-time.After(300 * time.Millisecond):
				}
				f.crash(w)
				close(second)
			}
		}
		return done
	}
	log := &servertest.Log{}
	if err := export(t, t.Context(), url, servers.Options{Connections: 2}, src, log); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.disk, servertest.Content(t, src)) || log.SentBytes.Load() != src.Size() {
		t.Errorf("other bytes arrived; %d bytes counted", log.SentBytes.Load())
	}
}

// A line that breaks within an answer.
func TestImageioAnswerCut(t *testing.T) {
	f, url := newFake(t, 1<<20)
	f.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 1 {
			return false
		}
		io.WriteString(w, `{"features": [`)
		w.(http.Flusher).Flush()
		return servertest.Reset(w)
	}
	up, err := Open(t.Context(), url, servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	up.Close(false)
}

func TestImageioRefuses(t *testing.T) {
	f, url := newFake(t, 1<<20)
	for _, c := range []struct {
		what string
		url  string
		file servers.File
		code int
		hint string
	}{
		{"too large", url, servers.File{Format: "raw", Size: 2 << 20}, cli.ExitNoSpace, "disk of 2097152 bytes"},
		{"another format", url, servers.File{Format: "qcow2", Size: 1 << 10}, cli.ExitServer, "--format"},
		{"no such ticket", strings.Replace(url, "3ee0", "4ee0", 1), servers.File{}, cli.ExitServer, "start another"},
		{"a user", strings.Replace(url, "://", "://me@", 1), servers.File{}, cli.ExitUsage, "transfer_url"},
		{"no ticket", strings.TrimSuffix(url, "3ee0c53d-0c73"), servers.File{}, cli.ExitUsage, "transfer_url"},
	} {
		up, err := Open(t.Context(), c.url, servers.Options{})
		if err == nil {
			err = up.(servers.Checker).Check(t.Context(), c.file)
			up.Close(false)
		}
		if err == nil || cli.ExitCode(err) != c.code || !strings.Contains(cli.Hint(err), c.hint) {
			t.Errorf("%s: %v, exit code %d, hint %q", c.what, err, cli.ExitCode(err), cli.Hint(err))
		} else if strings.Contains(err.Error(), "ee0c53d-0c73") {
			t.Errorf("%s: the error tells the ticket: %v", c.what, err)
		}
	}
	f.options = `{"max_writers": 1}`
	if up, err := Open(t.Context(), url, servers.Options{}); err != nil {
		t.Error(err)
	} else if err := up.(servers.Checker).Check(t.Context(), servers.File{Format: "vmdk", Size: 1}); cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("a format that oVirt has not: %v", err)
	} else if err := up.(servers.Checker).Check(t.Context(), servers.File{Format: "qcow2", Size: 1}); err != nil {
		t.Error(err)
	}
	f.options = fmt.Sprintf(allFeatures, len(f.disk))
	f.allow = "OPTIONS,GET"
	if _, err := Open(t.Context(), url, servers.Options{}); err == nil || !strings.Contains(cli.Hint(err), "direction=upload") {
		t.Errorf("for reading: %v", err)
	}
	// A server that fails for ever.
	f.allow = "OPTIONS,GET,PUT,PATCH"
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Method == "PUT" {
			http.Error(w, "no", http.StatusInternalServerError)
		}
		return r.Method == "PUT"
	}
	log := &servertest.Log{}
	if err := export(t, t.Context(), url, servers.Options{Retries: 2}, servertest.NewSource(1<<20, servertest.Data(0, 100)), log); !web.HasStatus(err, 500) || log.SentBytes.Load() != 0 {
		t.Errorf("fails for ever: %v, %d bytes counted", err, log.SentBytes.Load())
	}
}

func TestImageioDownload(t *testing.T) {
	f, url := newFake(t, 10<<20)
	f.allow = "OPTIONS,GET"
	copy(f.disk, servertest.Content(t, servertest.NewSource(10<<20, servertest.Data(1<<20, 64<<10), servertest.Data(5<<20, 128<<10))))
	d, err := OpenSource(t.Context(), url, servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != 10<<20 || d.Version() == "" || d.Lanes() != web.DefaultLanes {
		t.Errorf("size %d, version %q, %d lanes", d.Size(), d.Version(), d.Lanes())
	}
	var runs []web.Piece
	for off := int64(0); off < d.Size(); {
		start, end, err := d.(servers.Sparse).NextData(t.Context(), off)
		if err != nil {
			t.Fatal(err)
		}
		runs = append(runs, web.Piece{Start: start, End: end})
		off = end
	}
	if want := "[{1048576 1114112} {5242880 5373952} {10485760 10485760}]"; fmt.Sprint(runs) != want {
		t.Errorf("data %v, want %s", runs, want)
	}
	if start, end, _ := d.(servers.Sparse).NextData(t.Context(), 5<<20+77); start != 5<<20+77 || end != 5<<20+128<<10 {
		t.Errorf("in the middle of data: %d, %d", start, end)
	}
	var got bytes.Buffer
	if err := d.Read(t.Context(), &got, 3, -1); err != nil || !bytes.Equal(got.Bytes(), f.disk[3:]) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
}

func TestParseExtents(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`[]`, "[] 0 true"},
		{`[{"start": 0, "length": 5, "zero": false}, {"start": 5, "length": 5, "zero": false}, {"start": 10, "length": 1, "zero": true}]`, "[{0 10}] 11 true"},
		{`[{"start":0,"length":1},{"start":1,"length":1,"zero":true},{"start":2,"length":1},{"start":3,"length":1,"zero":true},{"start":4,"length":1}]`, "[{0 1} {2 5}] 5 true"},
		{`[{"start":1,"length":1}]`, "[] -1 false"},
		{`[{"start":0,"length":-1}]`, "[] -1 false"},
		{`[{"start":0,"length":9223372036854775807},{"start":9223372036854775807,"length":9}]`, "[] -1 false"},
		{`[{"start":0,"length":1}`, "[] -1 false"},
		{`{"a": 1}`, "[] -1 false"},
		{``, "[] -1 false"},
	} {
		data, end, err := parseExtents(strings.NewReader(c.text), 2)
		if got := fmt.Sprint(data, end, err == nil); got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.text, got, err, c.want)
		}
	}
}

func TestEachTask(t *testing.T) {
	src := servertest.NewSource(40<<20, servertest.Data(1<<20, 100), servertest.Data(1<<20+1000, 100), servertest.Data(20<<20, 17<<20))
	var got []string
	err := eachTask(src, 10, 41<<20, func(w task) error {
		got = append(got, fmt.Sprint(w.Start, w.End, w.zero))
		return nil
	})
	want := []string{
		"10 1048576 true", "1048576 1049676 false", "1049676 20971520 true",
		"20971520 37748736 false", "37748736 38797312 false", "38797312 42991616 true",
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// An interrupt ends what hangs.
func TestImageioInterrupt(t *testing.T) {
	f, url := newFake(t, 1<<20)
	hangs := make(chan struct{})
	f.fault = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.Method == "PUT" {
			io.Copy(io.Discard, r.Body)
			close(hangs)
			<-r.Context().Done()
		}
		return r.Method == "PUT"
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-hangs
		cancel()
	}()
	if err := export(t, ctx, url, servers.Options{}, servertest.NewSource(1<<20, servertest.Data(0, 100)), &servertest.Log{}); err == nil || ctx.Err() == nil {
		t.Errorf("%v", err)
	}
}
