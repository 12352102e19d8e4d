package webdav

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
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

func TestHTTPDownload(t *testing.T) {
	file := servertest.Content(t, servertest.SparseSource(3<<20, 41))
	old := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		what    string
		dav     *fakeDAV
		version bool
	}{
		{"a tag", &fakeDAV{header: http.Header{"Etag": {`"1"`}}}, true},
		{"a date", &fakeDAV{}, true},
		{"a weak tag and a date", &fakeDAV{header: http.Header{"Etag": {`W/"1"`}}}, true},
		{"changed just now", &fakeDAV{changed: time.Now().Add(-10 * time.Second), header: http.Header{"Etag": {`"1"`}}}, false},
		{"no ranges", &fakeDAV{before: func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Last-Modified", old.UTC().Format(http.TimeFormat))
			w.Header().Set("Content-Length", fmt.Sprint(len(file)))
			w.Write(file)
			return true
		}}, false},
		{"no ranges, no size", &fakeDAV{before: func(w http.ResponseWriter, r *http.Request) bool {
			w.Write(file[:1000])
			w.(http.Flusher).Flush()
			w.Write(file[1000:])
			return true
		}}, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			f, url := newDAV(t, c.dav)
			f.files["/a b"] = file
			d, err := OpenSource(t.Context(), url+"a%20b", servers.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if (d.Version() != "") != c.version || (d.Lanes() > 1) != c.version || !strings.HasSuffix(d.String(), "/a b") {
				t.Errorf("version %q, %d lanes, %s", d.Version(), d.Lanes(), d)
			}
			if d.Size() != int64(len(file)) && c.what != "no ranges, no size" {
				t.Errorf("size %d", d.Size())
			}
			// In pieces, in order.
			var got bytes.Buffer
			for _, n := range []int64{5, 1 << 20, -1} {
				if err := d.Read(t.Context(), &got, int64(got.Len()), n); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got.Bytes(), file) {
				t.Error("other bytes")
			}
			err = d.Read(t.Context(), io.Discard, 100, 100)
			if (err == nil) != c.version {
				t.Errorf("out of order: %v", err)
			}
			// From the start again.
			got.Reset()
			if err := d.Read(t.Context(), &got, 0, -1); err != nil || !bytes.Equal(got.Bytes(), file) {
				t.Errorf("again: %v", err)
			}
		})
	}
}

func TestHTTPDownloadFaults(t *testing.T) {
	file := servertest.Content(t, servertest.SparseSource(1<<20, 42))
	for _, c := range []struct {
		what  string
		fault func(f *fakeDAV)
		want  string
	}{
		{"another version", func(f *fakeDAV) { f.header = http.Header{"Etag": {`"2"`}} }, "has changed"},
		{"another size", func(f *fakeDAV) { f.files["/a"] = file[1:] }, "has changed"},
		{"gone", func(f *fakeDAV) { delete(f.files, "/a") }, "404"},
		{"another range", func(f *fakeDAV) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				r.Header.Set("Range", "bytes=101-199")
				return false
			}
		}, "asked for offset 100, the server sends 101"},
		{"a range that is none", func(f *fakeDAV) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Range", "bytes 5-1/7")
				w.WriteHeader(http.StatusPartialContent)
				return true
			}
		}, "not understood"},
		{"packed", func(f *fakeDAV) { f.header = http.Header{"Etag": {`"1"`}, "Content-Encoding": {"gzip"}} }, "packed"},
		{"cut", func(f *fakeDAV) {
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 100-299/%d", len(file)))
				w.Header().Set("Content-Length", "200")
				w.Header().Set("Etag", `"1"`)
				w.WriteHeader(http.StatusPartialContent)
				w.Write(file[100:150])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}, "unexpected EOF"},
	} {
		f, url := newDAV(t, &fakeDAV{header: http.Header{"Etag": {`"1"`}}})
		f.files["/a"] = file
		d, err := OpenSource(t.Context(), url+"a", servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		c.fault(f)
		var got bytes.Buffer
		err = d.Read(t.Context(), &got, 100, 200)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.what, err, c.want)
		}
		if transfer.MayPass(err) != (c.what == "cut") {
			t.Errorf("%s: tried again or not", c.what)
		}
		if c.what == "cut" && !bytes.Equal(got.Bytes(), file[100:150]) {
			t.Errorf("%d bytes before the cut", got.Len())
		}
		d.Close()
	}
	_, url := newDAV(t, &fakeDAV{})
	if _, err := OpenSource(t.Context(), url+"none", servers.Options{}); cli.ExitCode(err) != cli.ExitServer || !strings.Contains(cli.Hint(err), "check the URL") {
		t.Errorf("no such file: %v", err)
	}
	if _, err := OpenSource(t.Context(), url, servers.Options{}); cli.ExitCode(err) != cli.ExitUsage {
		t.Errorf("a folder: %v", err)
	}
}

// Apache sends what has just taken a file's place with the tag of the old one.
func TestHTTPDownloadUnderOldTag(t *testing.T) {
	for _, changed := range []time.Duration{time.Second, time.Hour} {
		f, url := newDAV(t, &fakeDAV{changed: time.Now().Add(-changed)})
		f.files["/a"] = make([]byte, 1000)
		tag := `"old"`
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("ETag", tag)
			if r.Header.Get("Range") != "bytes=0-0" {
				f.files["/a"], tag = bytes.Repeat([]byte("new "), 250), `"new"`
			}
			return false
		}
		d, err := OpenSource(t.Context(), url+"a", servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Read(t.Context(), io.Discard, 0, 1000); err == nil || !strings.Contains(err.Error(), "has changed") || transfer.MayPass(err) {
			t.Errorf("%v ago: %v", changed, err)
		}
		d.Close()
	}
}

// Another server does not see the credentials.
func TestHTTPDownloadRedirect(t *testing.T) {
	var seen []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		w.Write([]byte("file"))
	}))
	t.Cleanup(other.Close)
	f, url := newDAV(t, &fakeDAV{})
	var first string
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		first = r.Header.Get("Authorization")
		http.Redirect(w, r, other.URL+"/x?signature=1", http.StatusFound)
		return true
	}
	t.Setenv("FLATIMG_TOKEN", "token")
	got, err := fetch(t, url+"a", servers.Options{})
	if err != nil || string(got) != "file" {
		t.Errorf("%q, %v", got, err)
	}
	if first != "Bearer token" || strings.Join(seen, "") != "" || len(seen) == 0 {
		t.Errorf("%q to the first, %q to the other", first, seen)
	}
}

// A server that sends each request to another mirror.
func TestHTTPDownloadMirrors(t *testing.T) {
	file := []byte("the same everywhere")
	var mirrors []string
	var expired atomic.Bool // the first URL of the first mirror
	for i := range 2 {
		f, url := newDAV(t, &fakeDAV{header: http.Header{"Etag": {fmt.Sprintf(`"%d"`, i)}}})
		f.files["/a"] = file
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.Header.Get("Authorization") != "":
				t.Error("credentials were shown to a mirror")
			case expired.Load() && r.URL.RawQuery == "0":
				w.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		}
		mirrors = append(mirrors, url+"a")
	}
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := n.Add(1) - 1
		http.Redirect(w, r, fmt.Sprintf("%s?%d", mirrors[i%2], i), http.StatusFound)
	}))
	t.Cleanup(s.Close)
	d, err := OpenSource(t.Context(), s.URL+"/a", servers.Options{User: "me"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var got bytes.Buffer
	for _, p := range []web.Piece{{Start: 0, End: 5}, {Start: 5, End: int64(len(file))}} {
		if err := d.Read(t.Context(), &got, p.Start, p.End-p.Start); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got.Bytes(), file) {
		t.Errorf("fetched %q", got.Bytes())
	}
	expired.Store(true)
	n.Store(2)
	mirrors[1] = mirrors[0]
	if err := d.Read(t.Context(), io.Discard, 5, 5); err != nil {
		t.Errorf("a redirect that has expired: %v", err)
	}
}

func TestHTTPChecksum(t *testing.T) {
	sum := bytes.Repeat([]byte{7}, 32)
	text := base64.StdEncoding.EncodeToString(sum)
	md5 := base64.StdEncoding.EncodeToString(sum[:16])
	for _, c := range []struct {
		header, value string
		algorithm     string
	}{
		{"Repr-Digest", "sha-512=:AAAA:, sha-256=:" + text + ":", "sha256"},
		{"Digest", "MD5=" + md5 + ", SHA-256=" + text, "sha256"},
		{"Digest", "md5=" + md5, "md5"},
		{"Content-MD5", md5, "md5"},
		{"Digest", "sha-256=AAAA", ""},
		{"Digest", "unixsum=30637", ""},
		{"Repr-Digest", "", ""},
	} {
		f, url := newDAV(t, &fakeDAV{header: http.Header{http.CanonicalHeaderKey(c.header): {c.value}}})
		f.files["/a"] = []byte("file")
		d, err := OpenSource(t.Context(), url+"a", servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.(servers.Summer).Checksum(t.Context())
		switch {
		case c.algorithm == "" && !errors.Is(err, errors.ErrUnsupported):
			t.Errorf("%s: %s: %v", c.header, c.value, err)
		case c.algorithm != "" && (err != nil || got.Algorithm != c.algorithm || !bytes.HasPrefix(sum, got.Sum)):
			t.Errorf("%s: %s: %+v, %v", c.header, c.value, got, err)
		}
		d.Close()
	}
}

// TestHTTPTagGrowsStrong fetches a file whose tag is weak while the file is new,
// as Apache's are, and strong when it was fetched.
func TestHTTPTagGrowsStrong(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("new "), 1000)
	changed := time.Now()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tag := `"1"`
		if asked.Add(1) <= 2 {
			tag = "W/" + tag
		}
		w.Header().Set("ETag", tag)
		http.ServeContent(w, r, "", changed, bytes.NewReader(content))
	}))
	t.Cleanup(server.Close)
	down, err := OpenSource(t.Context(), server.URL+"/disk.raw", servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	var got bytes.Buffer
	if err := down.Read(t.Context(), &got, 0, -1); err != nil || !bytes.Equal(got.Bytes(), content) {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
	if asked.Load() < 3 {
		t.Errorf("%d requests: the tag never changed", asked.Load())
	}
}
