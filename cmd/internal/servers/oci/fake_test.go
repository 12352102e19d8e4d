package oci

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeRegistry is a registry in memory that can fail as real ones do.
type fakeRegistry struct {
	*httptest.Server
	t *testing.T

	mu        sync.Mutex
	blobs     map[string][]byte
	manifests map[string][]byte // by tag and by digest
	uploads   map[string][]byte
	requests  []string // METHOD path

	// cuts are how many bytes of each PATCH arrive before its connection is
	// cut; -1: all. Used up in order.
	cuts []int64
	// forgetful: an upload that was cut is not known any more.
	forgetful bool
	noChunks  bool
	// loseAnswers to requests whose "METHOD path" matches: done, but cut.
	loseAnswers *regexp.Regexp
	// failures are sent in place of answers to requests that match.
	failures *regexp.Regexp
	status   int
	failing  int    // so many times
	code     string // of the failures; empty: UNKNOWN
	// lost, which may be 0, is sent in place of an answer that is lost; late is
	// how often the blob is not seen after that.
	lost, late int
	// taken, which may be nil, is put after each manifest by somebody else.
	taken []byte
	// auth is "basic" or "bearer"; the user is me, the password secret.
	auth string
	// tokens given; the last one is good for tokenUses requests.
	tokens, tokenUses int
}

func newFakeRegistry(t *testing.T) *fakeRegistry {
	f := &fakeRegistry{t: t, blobs: map[string][]byte{}, manifests: map[string][]byte{}, uploads: map[string][]byte{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// dest is the URL of an image.
func (f *fakeRegistry) dest(image string) string {
	return "oci" + strings.TrimPrefix(f.URL, "http") + "/" + image
}

// count returns how many requests were like that.
func (f *fakeRegistry) count(pattern string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if regexp.MustCompile(pattern).MatchString(r) {
			n++
		}
	}
	return n
}

// left returns how many uploads are unfinished.
func (f *fakeRegistry) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.uploads)
}

// named says whether there is a manifest of that tag.
func (f *fakeRegistry) named(tag string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.manifests[tag] != nil
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	what := r.Method + " " + r.URL.Path
	f.requests = append(f.requests, what)
	if r.URL.Path == "/token" {
		f.token(w, r)
		return
	}
	if !f.authorized(w, r) {
		return
	}
	if f.failures != nil && f.failing > 0 && f.failures.MatchString(what) {
		f.failing--
		refuse(w, f.status, cmp.Or(f.code, "UNKNOWN"))
		return
	}
	if f.loseAnswers != nil && f.loseAnswers.MatchString(what) {
		f.loseAnswers = nil
		f.serve(httptest.NewRecorder(), r)
		if f.lost != 0 {
			f.failures, f.status, f.failing = regexp.MustCompile(`HEAD .*/blobs/sha256`), http.StatusNotFound, f.late
			w.WriteHeader(f.lost)
			return
		}
		panic(http.ErrAbortHandler)
	}
	f.serve(w, r)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"no"}]}`, code)
}

func (f *fakeRegistry) token(w http.ResponseWriter, r *http.Request) {
	user, secret, _ := r.BasicAuth()
	if user != "me" || secret != "secret" || r.FormValue("service") != "fake" || r.FormValue("scope") != "repository:vm/web:pull,push" {
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return
	}
	f.tokens++
	f.tokenUses = 7
	fmt.Fprintf(w, `{"token":"t%d"}`, f.tokens)
}

func (f *fakeRegistry) authorized(w http.ResponseWriter, r *http.Request) bool {
	got := r.Header.Get("Authorization")
	switch f.auth {
	case "basic":
		if got == "Basic "+base64.StdEncoding.EncodeToString([]byte("me:secret")) {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="fake"`)
	case "bearer":
		if f.tokenUses > 0 && got == fmt.Sprintf("Bearer t%d", f.tokens) {
			f.tokenUses--
			return true
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",service="fake",scope="repository:vm/web:pull"`)
	default:
		return true
	}
	refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
	return false
}

func (f *fakeRegistry) serve(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/vm/web/")
	if !ok {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN")
		return
	}
	kind, name, _ := strings.Cut(rest, "/")
	switch {
	case kind == "manifests" && r.Method == http.MethodPut:
		f.putManifest(w, r, name)
	case kind == "manifests":
		f.get(w, r, f.manifests[name])
	case name == "uploads/":
		id := strconv.Itoa(len(f.uploads) + 1)
		f.uploads[id] = []byte{}
		f.located(w, id, http.StatusAccepted)
	case strings.HasPrefix(name, "uploads/"):
		f.upload(w, r, strings.TrimPrefix(name, "uploads/"))
	default:
		f.get(w, r, f.blobs[name])
	}
}

func (f *fakeRegistry) get(w http.ResponseWriter, r *http.Request, b []byte) {
	if b == nil {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	w.Header().Set("Docker-Content-Digest", digestOf(sha256.Sum256(b)))
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(b)))
}

func (f *fakeRegistry) putManifest(w http.ResponseWriter, r *http.Request, tag string) {
	b, _ := io.ReadAll(r.Body)
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil || r.Header.Get("Content-Type") != m.MediaType {
		f.t.Errorf("manifest of type %s: %v", r.Header.Get("Content-Type"), err)
	}
	for _, d := range append(m.Layers, *m.Config) {
		if f.blobs[d.Digest] == nil {
			refuse(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
			return
		}
	}
	f.manifests[tag] = b
	f.manifests[digestOf(sha256.Sum256(b))] = b
	if f.taken != nil {
		f.manifests[tag] = f.taken
	}
	w.WriteHeader(http.StatusCreated)
}

func (f *fakeRegistry) located(w http.ResponseWriter, id string, status int) {
	w.Header().Set("Location", "/v2/vm/web/blobs/uploads/"+id+"?_state="+strconv.Itoa(len(f.uploads[id])))
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(len(f.uploads[id])-1, 0)))
	w.WriteHeader(status)
}

func (f *fakeRegistry) upload(w http.ResponseWriter, r *http.Request, id string) {
	b, ok := f.uploads[id]
	if !ok || f.forgetful && r.FormValue("_state") != strconv.Itoa(len(b)) {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_INVALID")
		return
	}
	switch r.Method {
	case http.MethodGet:
		f.located(w, id, http.StatusNoContent)
	case http.MethodDelete:
		delete(f.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch:
		if f.noChunks {
			io.Copy(io.Discard, r.Body) // an answer before its end may be lost, and asked for again
			refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED")
			return
		}
		if first, _, _ := strings.Cut(r.Header.Get("Content-Range"), "-"); first != strconv.Itoa(len(b)) {
			refuse(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
			return
		}
		cut := int64(-1)
		if len(f.cuts) > 0 {
			cut, f.cuts = f.cuts[0], f.cuts[1:]
		}
		if cut >= 0 {
			part, _ := io.ReadAll(io.LimitReader(r.Body, cut))
			f.uploads[id] = append(b, part...)
			panic(http.ErrAbortHandler)
		}
		part, _ := io.ReadAll(r.Body)
		f.uploads[id] = append(b, part...)
		f.located(w, id, http.StatusAccepted)
	case http.MethodPut:
		part, _ := io.ReadAll(r.Body)
		b = append(b, part...)
		delete(f.uploads, id)
		digest, _ := url.QueryUnescape(r.FormValue("digest"))
		if digest != digestOf(sha256.Sum256(b)) {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		f.blobs[digest] = b
		w.WriteHeader(http.StatusCreated)
	}
}
