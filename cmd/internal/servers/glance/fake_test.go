package glance

import (
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"flatimg/cmd/internal/servers/transfer"
)

// fakeServer is an image service in memory that can fail as real ones do.
type fakeServer struct {
	*httptest.Server

	mu     sync.Mutex
	images map[string]map[string]any // by id
	files  map[string][]byte
	clock  int // of updated_at

	// loseAnswers to requests whose "METHOD path" matches: done, but cut.
	loseAnswers *regexp.Regexp
	// failures are sent in place of answers to requests that match.
	failures *regexp.Regexp
	status   int
	failing  int // so many times
	// change makes what the service has found in a file something else.
	change func(image map[string]any)
	// renamed and deleted, which may be nil, are called when an image got a name
	// that is not hidden, and when one was deleted.
	renamed func(image map[string]any)
	deleted func()
	// noRanges: whole files only.
	noRanges bool
	// tasks of imports, each answer once; the last one stays.
	tasks []string
}

func newFake(t *testing.T) *fakeServer {
	f := &fakeServer{images: map[string]map[string]any{}, files: map[string][]byte{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	useFake(t, f.URL+"/image", "token")
	return f
}

// names returns those of all images.
func (f *fakeServer) names() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range f.images {
		names = append(names, i["name"].(string))
	}
	return names
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path, ok := strings.CutPrefix(r.URL.Path, "/image/v2/")
	what := r.Method + " " + path
	switch {
	case !ok || r.Header.Get("X-Auth-Token") != "token":
		http.Error(w, "<html><head><title>401</title></head><body><h1>401</h1>Please log in.<br /></body></html>", http.StatusUnauthorized)
	case f.failures != nil && f.failing > 0 && f.failures.MatchString(what):
		f.failing--
		if f.status < 500 {
			io.Copy(io.Discard, r.Body) // an answer before its end may be lost, and this one is not repeated
		}
		w.WriteHeader(f.status)
		fmt.Fprint(w, `{"message": "The store is unwell.", "code": "x"}`)
	case f.loseAnswers != nil && f.loseAnswers.MatchString(what):
		f.loseAnswers = nil
		f.serve(httptest.NewRecorder(), r, path)
		panic(http.ErrAbortHandler)
	default:
		f.serve(w, r, path)
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (f *fakeServer) serve(w http.ResponseWriter, r *http.Request, path string) {
	switch path {
	case "schemas/image":
		fmt.Fprint(w, `{"properties": {"disk_format": {"enum": [null, "raw", "qcow2"]}}}`)
		return
	case "info/import":
		fmt.Fprint(w, `{"import-methods": {"value": ["glance-direct"]}}`)
		return
	case "images":
		f.serveImages(w, r)
		return
	}
	id, what, _ := strings.Cut(strings.TrimPrefix(path, "images/"), "/")
	image := f.images[id]
	if image == nil {
		http.Error(w, `{"message": "No image found."}`, http.StatusNotFound)
		return
	}
	switch r.Method + " " + what {
	case "GET ":
		answer(w, 200, image)
	case "DELETE ":
		delete(f.images, id)
		if f.deleted != nil {
			f.deleted()
		}
		w.WriteHeader(204)
	case "PATCH ":
		var changes []struct{ Path, Value string }
		json.NewDecoder(r.Body).Decode(&changes)
		image[strings.TrimPrefix(changes[0].Path, "/")] = changes[0].Value
		f.touch(image)
		answer(w, 200, image)
		if name := image["name"].(string); f.renamed != nil && !transfer.IsHiddenName(name) {
			f.renamed(image)
		}
	case "PUT file", "PUT stage":
		b, err := io.ReadAll(r.Body)
		if err != nil || r.ContentLength != int64(len(b)) {
			panic(http.ErrAbortHandler)
		}
		f.files[id] = b
		image["status"] = "uploading"
		if what == "file" {
			f.activate(image)
		}
		w.WriteHeader(204)
	case "POST import":
		f.activate(image)
		w.WriteHeader(202)
	case "GET tasks":
		fmt.Fprintf(w, `{"tasks": [{"status": %q, "message": "it broke"}]}`, f.tasks[0])
		f.tasks = f.tasks[min(1, len(f.tasks)-1):]
	case "GET file":
		if f.noRanges {
			w.Write(f.files[id])
			return
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(f.files[id])))
	}
}

func (f *fakeServer) touch(image map[string]any) {
	f.clock++
	image["updated_at"] = fmt.Sprintf("2025-01-01T00:00:%02dZ", f.clock)
}

func (f *fakeServer) activate(image map[string]any) {
	b := f.files[image["id"].(string)]
	image["status"], image["size"], image["virtual_size"] = "active", len(b), len(b)
	image["os_hash_algo"], image["os_hash_value"] = "sha512", fmt.Sprintf("%x", sha512.Sum512(b))
	f.touch(image)
	if f.change != nil {
		f.change(image)
	}
}

func (f *fakeServer) serveImages(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		image := map[string]any{"owner": "me", "status": "queued", "virtual_size": nil, "size": nil, "os_hash_value": nil}
		json.NewDecoder(r.Body).Decode(&image)
		f.images[image["id"].(string)] = image
		answer(w, 201, image)
		return
	}
	var found []map[string]any
	for _, i := range f.images {
		if i["name"] == r.FormValue("name") {
			found = append(found, i)
		}
	}
	answer(w, 200, map[string]any{"images": found})
}
