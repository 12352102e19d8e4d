package webdav

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

func TestHTTPUploadFaults(t *testing.T) {
	t.Parallel()
	src := servertest.SparseSource(5<<20, 31)
	data, _ := transfer.DataSize(src)
	times := func(f *fakeDAV, method string, from, to int64, status int) {
		var n atomic.Int64 // requests that it has met
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || r.ContentLength < 100 && method == "PUT" {
				return false
			}
			i := n.Add(1)
			if i < from || i > to {
				return false
			}
			if status == http.StatusInternalServerError {
				io.Copy(io.Discard, r.Body) // an answer before its end may be lost, and this one is not repeated
			}
			w.WriteHeader(status)
			return true
		}
	}
	for _, c := range []struct {
		what  string
		dav   *fakeDAV
		o     servers.Options
		fault func(f *fakeDAV)
		code  int
		hint  string
		left  int // files that are there when it has failed
	}{
		{what: "honours Content-Range", dav: &fakeDAV{ranges: "honour"}},
		{what: "ignores Content-Range", dav: &fakeDAV{ranges: "ignore"}},
		{what: "refuses Content-Range", dav: &fakeDAV{}},
		{what: "busy", fault: func(f *fakeDAV) { times(f, "PUT", 1, 2, 503) }},
		{what: "busy with pieces", dav: &fakeDAV{ranges: "honour"}, fault: func(f *fakeDAV) { times(f, "PUT", 2, 3, 502) }},
		{what: "busy for ever", o: servers.Options{Retries: 1}, fault: func(f *fakeDAV) { times(f, "PUT", 1, 99, 503) }, code: cli.ExitServer},
		{what: "disk full", fault: func(f *fakeDAV) { times(f, "PUT", 1, 99, 507) }, code: cli.ExitNoSpace},
		{what: "too large", fault: func(f *fakeDAV) { times(f, "PUT", 1, 99, 413) }, code: cli.ExitServer, hint: "LimitRequestBody"},
		{what: "no login any more", fault: func(f *fakeDAV) { times(f, "PUT", 1, 99, 401) }, code: cli.ExitServer, hint: "--user"},
		{what: "no folder", fault: func(f *fakeDAV) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "PUT" {
					w.WriteHeader(http.StatusConflict)
				}
				return r.Method == "PUT"
			}
		}, code: cli.ExitServer, hint: "folder"},
		{what: "no MOVE", dav: &fakeDAV{noMove: true}, code: cli.ExitServer, hint: "--direct"},
		{what: "direct", dav: &fakeDAV{noMove: true}, o: servers.Options{Direct: true}},
		{what: "direct is not needed", o: servers.Options{Direct: true}},
		{what: "answer to MOVE lost", fault: func(f *fakeDAV) {
			f.lose = func(r *http.Request) bool {
				return r.Method == "MOVE" && strings.HasSuffix(r.Header.Get("Destination"), "/a.raw")
			}
		}},
		{what: "answer to MOVE lost, not tried again", o: servers.Options{Retries: -1}, fault: func(f *fakeDAV) {
			f.lose = func(r *http.Request) bool {
				return r.Method == "MOVE" && strings.HasSuffix(r.Header.Get("Destination"), "/a.raw")
			}
		}},
		{what: "locked by a request that was cut", fault: func(f *fakeDAV) { times(f, "PUT", 1, 1, 423) }},
		{what: "fails for ever", fault: func(f *fakeDAV) { times(f, "PUT", 1, 1, 500) }, code: cli.ExitServer, hint: "disk full"},
		// The first two are of the probe.
		{what: "MOVE fails for ever", o: servers.Options{Retries: 2}, fault: func(f *fakeDAV) { times(f, "MOVE", 3, 9, 503) }, code: cli.ExitServer},
		{what: "MOVE in a race", o: servers.Options{Force: true}, fault: func(f *fakeDAV) { times(f, "MOVE", 3, 3, 404) }},
		{what: "another is as fast", fault: func(f *fakeDAV) {
			f.lose = func(r *http.Request) bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				if _, there := f.files["/a.raw"]; there && r.Method == "MOVE" {
					delete(f.files, "/a.raw")
					f.files["/a.raw"] = make([]byte, src.Size())
				}
				return false
			}
		}, code: cli.ExitExists, left: 1},
		{what: "the first connection is reset", fault: func(f *fakeDAV) {
			var n atomic.Int64
			f.before = func(w http.ResponseWriter, r *http.Request) bool { return n.Add(1) == 1 && servertest.Reset(w) }
		}},
		{what: "answer to a direct PUT lost, then busy", dav: &fakeDAV{noMove: true}, o: servers.Options{Direct: true}, fault: func(f *fakeDAV) {
			var n atomic.Int64
			f.lose = func(r *http.Request) bool { return r.Method == "PUT" && n.Add(1) == 1 }
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != "HEAD" || n.Load() != 1 {
					return false
				}
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			}
		}},
		{what: "answer to a direct PUT lost", dav: &fakeDAV{noMove: true}, o: servers.Options{Direct: true}, fault: func(f *fakeDAV) {
			var n atomic.Int64
			f.lose = func(r *http.Request) bool { return r.Method == "PUT" && n.Add(1) == 1 }
		}},
		{what: "no HEAD", fault: func(f *fakeDAV) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "HEAD" && r.URL.Path != "/a.raw" && r.Header.Get("Want-Digest") == "" {
					f.mu.Lock()
					defer f.mu.Unlock()
					if len(f.files[r.URL.Path]) < 100 {
						return false
					}
					w.WriteHeader(http.StatusMethodNotAllowed)
					return true
				}
				return false
			}
		}},
		{what: "quota", dav: &fakeDAV{quota: "1000"}, code: cli.ExitNoSpace},
		{what: "no quota", dav: &fakeDAV{quota: "-3"}},
		{what: "redirected PUT", fault: func(f *fakeDAV) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "PUT" {
					http.Redirect(w, r, "http://127.0.0.1:1/other?secret", http.StatusFound)
				}
				return r.Method == "PUT"
			}
		}, code: cli.ExitServer, hint: "give that URL"},
		{what: "redirected PUT to the same server", fault: func(f *fakeDAV) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != "PUT" || r.URL.RawQuery != "" {
					return false
				}
				http.Redirect(w, r, r.URL.Path+"?x", http.StatusTemporaryRedirect)
				return true
			}
		}},
		{what: "loses the end", fault: func(f *fakeDAV) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "HEAD" {
					f.mu.Lock()
					defer f.mu.Unlock()
					if b := f.files[r.URL.Path]; len(b) > 100 {
						f.files[r.URL.Path] = b[:len(b)-1]
					}
				}
				return false
			}
		}, code: cli.ExitServer},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			f, url := newDAV(t, cmp.Or(c.dav, &fakeDAV{}))
			if c.fault != nil {
				c.fault(f)
			}
			log := &servertest.Log{}
			err := export(t, t.Context(), url+"a.raw", c.o, src, log)
			if c.code != 0 {
				if err == nil || cli.ExitCode(err) != c.code || !strings.Contains(cli.Hint(err), c.hint) || strings.Contains(err.Error(), "secret") {
					t.Errorf("%v, exit code %d, hint %q", err, cli.ExitCode(err), cli.Hint(err))
				}
				if len(strings.Fields(f.names())) != c.left {
					t.Errorf("left over: %s", f.names())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if f.names() != "/a.raw" || !bytes.Equal(f.files["/a.raw"], servertest.Content(t, src)) {
				t.Errorf("other bytes arrived; there is %s", f.names())
			}
			if log.SentBytes.Load() != data {
				t.Errorf("%d bytes counted, want %d", log.SentBytes.Load(), data)
			}
		})
	}
}

// A server that has no time is not one that can't.
func TestHTTPProbeBusy(t *testing.T) {
	f, url := newDAV(t, &fakeDAV{})
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == "MOVE" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return r.Method == "MOVE"
	}
	if _, err := Open(t.Context(), url+"a", servers.Options{Retries: -1}); !web.HasStatus(err, http.StatusServiceUnavailable) {
		t.Errorf("%v", err)
	}
}

// A file that appears while ours is sent stays.
func TestHTTPPublishExists(t *testing.T) {
	for _, o := range []servers.Options{{}, {Direct: true}} {
		f, url := newDAV(t, &fakeDAV{noMove: o.Direct})
		up, err := Open(t.Context(), url+"a", o)
		if err != nil {
			t.Fatal(err)
		}
		f.files["/a"] = []byte("another's")
		src := servertest.NewSource(10, servertest.Data(0, 10))
		if err = up.Send(t.Context(), src, &servertest.Log{}); err == nil {
			err = up.Publish(t.Context())
		}
		if !errors.Is(err, fs.ErrExist) || cli.ExitCode(err) != cli.ExitExists {
			t.Errorf("%v", err)
		}
		if err := up.Close(false); err != nil {
			t.Error(err)
		}
		if f.names() != "/a" || string(f.files["/a"]) != "another's" {
			t.Errorf("there is %s", f.names())
		}
	}
}

func TestHTTPResume(t *testing.T) {
	src := servertest.NewSource(1<<20, servertest.Data(0, 300<<10), servertest.Data(500<<10, 300<<10))
	data, _ := transfer.DataSize(src)
	f, url := newDAV(t, &fakeDAV{ranges: "honour"})
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.Header.Get("Content-Range"), "bytes 614400-") {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	}
	open := func(o servers.Options) *upload {
		t.Helper()
		up, err := Open(t.Context(), url+"a", o)
		if err != nil {
			t.Fatal(err)
		}
		up.(*upload).piece = 100 << 10
		return up.(*upload)
	}
	up, log := open(servers.Options{}), &servertest.Log{}
	if err := up.Send(t.Context(), src, log); !web.HasStatus(err, http.StatusForbidden) {
		t.Fatal(err)
	}
	if err := up.Close(true); err != nil {
		t.Fatal(err)
	}
	f.before = nil
	part := f.names()
	up, again := open(servers.Options{Resume: log.State}), &servertest.Log{}
	if err := up.Send(t.Context(), src, again); err != nil {
		t.Fatal(err)
	}
	if again.KeptBytes.Load() != 400<<10 || again.SentBytes.Load() != data-400<<10 || f.names() != part {
		t.Errorf("%d bytes kept and %d sent, to %s after %s", again.KeptBytes.Load(), again.SentBytes.Load(), f.names(), part)
	}
	if err := up.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	up.Close(false)
	if !bytes.Equal(f.files["/a"], servertest.Content(t, src)) || f.names() != "/a" {
		t.Error("other bytes arrived")
	}

	// The part is gone.
	up, again = open(servers.Options{Resume: log.State, Force: true}), &servertest.Log{}
	if err := up.Send(t.Context(), src, again); err != nil {
		t.Fatal(err)
	}
	if again.KeptBytes.Load() != 0 || again.SentBytes.Load() != data || len(again.Said) != 1 {
		t.Errorf("%d bytes kept and %d sent, said %q", again.KeptBytes.Load(), again.SentBytes.Load(), again.Said)
	}
	if err := up.Close(true); err != nil {
		t.Fatal(err)
	}
	// A job is removed.
	if err := open(servers.Options{Resume: again.State, Force: true}).Close(false); err != nil || f.names() != "/a" {
		t.Errorf("%v; there is %s", err, f.names())
	}
	// A server that can't go on in the middle.
	f.ranges = ""
	up, log = open(servers.Options{Force: true}), &servertest.Log{}
	if err := up.Send(t.Context(), src, log); err != nil {
		t.Fatal(err)
	}
	if err := up.Close(true); err != nil {
		t.Fatal(err)
	}
	up, again = open(servers.Options{Resume: log.State, Force: true}), &servertest.Log{}
	if err := up.Send(t.Context(), src, again); err != nil || again.KeptBytes.Load() != data || again.SentBytes.Load() != 0 {
		t.Errorf("%v; %d bytes kept, %d sent", err, again.KeptBytes.Load(), again.SentBytes.Load())
	}
	log.Keep(uploadState{Part: up.state.Part, Size: src.Size(), abilities: up.can})
	up, again = open(servers.Options{Resume: log.State, Force: true}), &servertest.Log{}
	if err := up.Send(t.Context(), src, again); err != nil || len(again.Said) != 1 || again.SentBytes.Load() != data {
		t.Errorf("%v, said %q", err, again.Said)
	}
	if err := up.Close(false); err != nil || f.names() != "/a" {
		t.Errorf("%v; there is %s", err, f.names())
	}
}

// A run that was killed between the rename and its report.
func TestHTTPResumePublished(t *testing.T) {
	for _, ranges := range []string{"honour", ""} {
		src := servertest.SparseSource(1<<20, 35)
		data, _ := transfer.DataSize(src)
		f, url := newDAV(t, &fakeDAV{ranges: ranges})
		log := &servertest.Log{}
		if err := export(t, t.Context(), url+"a", servers.Options{}, src, log); err != nil {
			t.Fatal(err)
		}
		again := &servertest.Log{}
		if err := export(t, t.Context(), url+"a", servers.Options{Resume: log.State}, src, again); err != nil || again.KeptBytes.Load() != data || again.SentBytes.Load() != 0 {
			t.Errorf("%v; %d bytes kept, %d sent", err, again.KeptBytes.Load(), again.SentBytes.Load())
		}
		// Another's of the same size.
		f.files["/a"] = make([]byte, src.Size())
		if err := export(t, t.Context(), url+"a", servers.Options{Resume: log.State}, src, again); !errors.Is(err, fs.ErrExist) {
			t.Errorf("another's: %v", err)
		}
		if f.names() != "/a" || len(bytes.Trim(f.files["/a"], "\x00")) != 0 {
			t.Errorf("there is %s", f.names())
		}
	}
}

// What fails at the final name is removed when it is ours.
func TestHTTPDirectPartial(t *testing.T) {
	src := servertest.SparseSource(1<<20, 33)
	alike := servertest.Content(t, src)[:500<<10]
	alike[250<<10]++
	for _, c := range []struct {
		what string
		left []byte
		stay bool
	}{
		{"ours", servertest.Content(t, src)[:500<<10], false},
		{"another's", []byte("another's"), true},
		{"another's, larger", make([]byte, 2<<20), true},
		{"another's, which begins and ends alike", alike, true},
	} {
		f, url := newDAV(t, &fakeDAV{noMove: true})
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != "PUT" {
				return false
			}
			f.mu.Lock()
			f.files["/a"] = c.left
			f.mu.Unlock()
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		if err := export(t, t.Context(), url+"a", servers.Options{Direct: true}, src, &servertest.Log{}); !web.HasStatus(err, http.StatusForbidden) {
			t.Errorf("%s: %v", c.what, err)
		}
		if got := f.names(); c.stay != (got == "/a") {
			t.Errorf("%s: there is %q", c.what, got)
		}
	}
}

// An interrupt ends what hangs, and the server's silence does not hold Close up.
func TestHTTPInterrupt(t *testing.T) {
	t.Parallel()
	f, url := newDAV(t, &fakeDAV{})
	up, err := Open(t.Context(), url+"a", servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
		return true
	}
	if err := up.Send(ctx, servertest.NewSource(100, servertest.Data(0, 100)), &servertest.Log{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	begin := time.Now()
	if err := up.Close(false); err == nil || !strings.Contains(err.Error(), "left over") {
		t.Errorf("%v", err)
	}
	if took := time.Since(begin); took > servertest.Hangs {
		t.Errorf("Close took %v", took)
	}
}
