package webdav

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeDAV is a WebDAV server in memory that can be made to fail.
type fakeDAV struct {
	// ranges is what it does with Content-Range in a PUT: "honour", "ignore",
	// or else refuse.
	ranges string
	noMove bool
	quota  string
	// before, which may be nil, answers a request itself when it returns true.
	before func(w http.ResponseWriter, r *http.Request) bool
	// lose drops the connection in place of an answer to what was done.
	lose func(r *http.Request) bool
	// header is added to all answers to GET and HEAD.
	header http.Header
	// changed is when all files were.
	changed time.Time

	mu    sync.Mutex
	files map[string][]byte
}

// newDAV returns a server, and its URL with a slash.
func newDAV(t *testing.T, f *fakeDAV) (*fakeDAV, string) {
	t.Helper()
	f.files = map[string][]byte{}
	if f.changed.IsZero() {
		f.changed = time.Now().Add(-time.Hour)
	}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return f, s.URL + "/"
}

func (f *fakeDAV) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.before != nil && f.before(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var answer httptest.ResponseRecorder
	answer.Body = new(bytes.Buffer)
	f.mu.Lock()
	f.serve(&answer, r, body)
	f.mu.Unlock()
	if f.lose != nil && f.lose(r) {
		panic(http.ErrAbortHandler)
	}
	for name, values := range answer.Result().Header {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	if r.Method != "HEAD" {
		w.Write(answer.Body.Bytes())
	}
}

func (f *fakeDAV) serve(w http.ResponseWriter, r *http.Request, body []byte) {
	name := r.URL.Path
	old, there := f.files[name]
	switch r.Method {
	case "HEAD", "GET":
		if !there {
			http.NotFound(w, r)
			return
		}
		for name, values := range f.header {
			w.Header()[name] = values
		}
		http.ServeContent(w, r, "", f.changed, bytes.NewReader(old))
	case "PUT":
		if r.Header.Get("If-None-Match") == "*" && there {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		if r.Header.Get("Content-Range") != "" && f.ranges != "ignore" {
			if f.ranges != "honour" {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			var start, last int
			fmt.Sscanf(r.Header.Get("Content-Range"), "bytes %d-%d/*", &start, &last)
			if grow := last + 1 - len(old); grow > 0 {
				old = append(old, make([]byte, grow)...)
			}
			copy(old[start:], body)
			body = old
		}
		f.files[name] = body
		w.WriteHeader(http.StatusCreated)
	case "DELETE":
		if !there {
			http.NotFound(w, r)
			return
		}
		delete(f.files, name)
		w.WriteHeader(http.StatusNoContent)
	case "MOVE":
		to, err := url.Parse(r.Header.Get("Destination"))
		_, taken := f.files[to.Path]
		switch {
		case f.noMove:
			w.WriteHeader(http.StatusMethodNotAllowed)
		case err != nil || to.Host != r.Host:
			w.WriteHeader(http.StatusBadGateway)
		case !there:
			http.NotFound(w, r)
		case taken && r.Header.Get("Overwrite") == "F":
			w.WriteHeader(http.StatusPreconditionFailed)
		default:
			delete(f.files, name)
			f.files[to.Path] = old
			w.WriteHeader(http.StatusCreated)
		}
	case "PROPFIND":
		if f.quota == "" {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		w.WriteHeader(http.StatusMultiStatus)
		fmt.Fprintf(w, `<d:multistatus xmlns:d="DAV:"><d:prop><d:quota-available-bytes>%s</d:quota-available-bytes></d:prop></d:multistatus>`, f.quota)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// names are the files that are there.
func (f *fakeDAV) names() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var names []string
	for name := range f.files {
		names = append(names, name)
	}
	return strings.Join(names, " ")
}
