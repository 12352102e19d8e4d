package s3

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
)

// fakeServer is a server for one object that answers otherwise than it should
// where a test wants that. It checks no signatures.
type fakeServer struct {
	// odd, which may be nil, answers a request itself when it returns true.
	odd func(w http.ResponseWriter, r *http.Request) bool
	// etag returns that of a part; nil: its MD5.
	etag func(number int, sum []byte) string
	// noChecksums: SHA-256 is unknown.
	noChecksums bool

	mu     sync.Mutex
	upload bool
	parts  map[int][]byte
	object []byte // nil: there is none
	tag    string // the object's ETag
}

// startFake starts a server to which the environment leads.
func startFake(t *testing.T, f *fakeServer) {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	env(t, server.URL, "id", "secret")
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.odd != nil && f.odd(w, r) {
		return
	}
	query := r.URL.Query()
	number, _ := strconv.Atoi(query.Get("partNumber"))
	switch {
	case query.Has("uploadId") && !f.upload:
		refuse(w, r, http.StatusNotFound, "NoSuchUpload")
	case r.Method == http.MethodPost && query.Has("uploads"):
		f.upload, f.parts = true, map[int][]byte{}
		io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>one</UploadId></InitiateMultipartUploadResult>")
	case r.Method == http.MethodPost:
		f.object, f.tag, f.upload = nil, f.composite(), false
		for n := range len(f.parts) {
			f.object = append(f.object, f.parts[n+1]...)
		}
		io.WriteString(w, "<CompleteMultipartUploadResult><Bucket>bucket</Bucket><ETag>x</ETag></CompleteMultipartUploadResult>")
	case r.Method == http.MethodPut:
		b, _ := io.ReadAll(r.Body)
		f.parts[number] = b
		w.Header().Set("ETag", `"`+f.partETag(number)+`"`)
		if !f.noChecksums {
			w.Header().Set("X-Amz-Checksum-Sha256", sha256Text(b))
		}
	case r.Method == http.MethodDelete:
		f.upload = false
		w.WriteHeader(http.StatusNoContent)
	case query.Has("uploadId"):
		io.WriteString(w, "<ListPartsResult>")
		for n, b := range f.parts {
			fmt.Fprintf(w, `<Part><PartNumber>%d</PartNumber><ETag>"%s"</ETag><Size>%d</Size>`, n, f.partETag(n), len(b))
			if !f.noChecksums {
				fmt.Fprintf(w, "<ChecksumSHA256>%s</ChecksumSHA256>", sha256Text(b))
			}
			io.WriteString(w, "</Part>")
		}
		io.WriteString(w, "</ListPartsResult>")
	case f.object == nil:
		refuse(w, r, http.StatusNotFound, "NoSuchKey")
	default:
		w.Header().Set("ETag", `"`+f.tag+`"`)
		http.ServeContent(w, r, "", modified, bytes.NewReader(f.object))
	}
}

func (f *fakeServer) partETag(number int) string {
	sum := md5.Sum(f.parts[number])
	if f.etag != nil {
		return f.etag(number, sum[:])
	}
	return hex.EncodeToString(sum[:])
}

func (f *fakeServer) composite() string {
	var parts []sent
	for n := range len(f.parts) {
		parts = append(parts, sent{etag: f.partETag(n + 1)})
	}
	tag, _ := compositeETag(parts)
	return tag
}

// sha256Text returns a SHA-256 as S3 writes it.
func sha256Text(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.StdEncoding.EncodeToString(sum[:])
}

// refuse answers with an error, which HEAD has no body for.
func refuse(w http.ResponseWriter, r *http.Request, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>it is so</Message></Error>", code)
	}
}

// isComplete says whether a request completes an upload.
func isComplete(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId")
}

func isList(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Query().Has("uploadId")
}

func isPart(r *http.Request) bool { return r.Method == http.MethodPut }

// times returns a function that answers with an error the first n requests
// of a kind.
func times(n, status int, code string, is func(r *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if n == 0 || !is(r) {
			return false
		}
		n--
		io.Copy(io.Discard, r.Body)
		refuse(w, r, status, code)
		return true
	}
}

func TestS3OddServers(t *testing.T) {
	opaque := func(n int, _ []byte) string { return fmt.Sprintf("opaque%d", n) }
	for _, c := range []struct {
		name string
		fake *fakeServer
		// by is who has verified; want what an error tells, empty: there is none.
		by, want string
		code     int
	}{
		{name: "all is well", fake: &fakeServer{}, by: "SHA-256"},
		{name: "no SHA-256", fake: &fakeServer{noChecksums: true}, by: "MD5"},
		{name: "no checksums at all", fake: &fakeServer{noChecksums: true, etag: opaque}},
		{name: "SHA-256 is not implemented", by: "MD5", fake: &fakeServer{noChecksums: true, odd: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Header.Get("X-Amz-Checksum-Algorithm") == "" && r.Header.Get("X-Amz-Checksum-Sha256") == "" {
				return false
			}
			refuse(w, r, http.StatusNotImplemented, "NotImplemented")
			return true
		}}},
		{name: "another MD5", want: "differs", code: cli.ExitServer, fake: &fakeServer{noChecksums: true, etag: func(n int, sum []byte) string {
			if n == 2 {
				sum[0]++
			}
			return hex.EncodeToString(sum)
		}}},
		{name: "another SHA-256", want: "differs", code: cli.ExitServer, fake: &fakeServer{odd: func(w http.ResponseWriter, r *http.Request) bool {
			if !isPart(r) {
				return false
			}
			io.Copy(io.Discard, r.Body)
			w.Header().Set("ETag", `"x"`)
			w.Header().Set("X-Amz-Checksum-Sha256", sha256Text(nil))
			return true
		}}},
		{name: "a busy server", by: "SHA-256", fake: &fakeServer{odd: times(2, http.StatusServiceUnavailable, "SlowDown", isPart)}},
		{name: "what arrived is damaged", by: "SHA-256", fake: &fakeServer{odd: times(1, http.StatusBadRequest, "XAmzContentSHA256Mismatch", isPart)}},
		{name: "only what is signed", by: "SHA-256", fake: &fakeServer{odd: func(w http.ResponseWriter, r *http.Request) bool {
			if isPart(r) && r.Header.Get("X-Amz-Content-Sha256") == "UNSIGNED-PAYLOAD" {
				io.Copy(io.Discard, r.Body)
				refuse(w, r, http.StatusForbidden, "AccessDenied")
				return true
			}
			return false
		}}},
		{name: "denied", want: "AccessDenied", code: cli.ExitServer, fake: &fakeServer{odd: times(-1, http.StatusForbidden, "AccessDenied", isPart)}},
		{name: "full", want: "full", code: cli.ExitNoSpace, fake: &fakeServer{odd: times(-1, http.StatusInsufficientStorage, "XMinioStorageFull", isPart)}},
		{name: "no condition", by: "SHA-256", fake: &fakeServer{odd: func(w http.ResponseWriter, r *http.Request) bool {
			if isComplete(r) && r.Header.Get("If-None-Match") != "" {
				refuse(w, r, http.StatusNotImplemented, "NotImplemented")
				return true
			}
			return false
		}}},
		{name: "an error that begins as a success", by: "SHA-256", fake: &fakeServer{odd: times(1, http.StatusOK, "InternalError", isComplete)}},
		{name: "failing for ever", want: "may be there", code: cli.ExitServer, fake: &fakeServer{odd: times(-1, http.StatusInternalServerError, "InternalError", isComplete)}},
		{name: "an upload that is gone", want: "NoSuchUpload", code: cli.ExitServer, fake: &fakeServer{odd: times(-1, http.StatusNotFound, "NoSuchUpload", isComplete)}},
		{name: "no right to list", by: "SHA-256", fake: &fakeServer{odd: times(-1, http.StatusForbidden, "AccessDenied", isList)}},
		{name: "no right to list, and no SHA-256", want: "AccessDenied", code: cli.ExitServer, fake: &fakeServer{noChecksums: true, odd: times(-1, http.StatusForbidden, "AccessDenied", isList)}},
		{name: "busy at first", by: "SHA-256", fake: &fakeServer{odd: times(1, http.StatusServiceUnavailable, "SlowDown", func(r *http.Request) bool { return r.Method == http.MethodHead })}},
		{name: "a list without end", want: "does not go on", code: cli.ExitServer, fake: &fakeServer{odd: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !r.URL.Query().Has("uploadId") {
				return false
			}
			io.WriteString(w, "<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>")
			return true
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			startFake(t, c.fake)
			src := servertest.NewSource(usualPart+1000, servertest.Data(0, 1000), servertest.Data(usualPart-10, 1010))
			u, err := Open(t.Context(), "s3://bucket/a/key", servers.Options{Retries: 2, Connections: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close(false)
			by := ""
			err = u.Send(t.Context(), src, &servertest.Log{})
			if err == nil {
				by, err = u.(servers.Verifier).Verify(t.Context(), nil)
				if c.by == "" && c.want == "" && errors.Is(err, errors.ErrUnsupported) {
					err = nil
				}
			}
			if err == nil {
				err = u.Publish(t.Context())
			}
			switch {
			case c.want == "" && (err != nil || !strings.HasPrefix(by, c.by)):
				t.Errorf("verified by %q, %v; want %q", by, err, c.by)
			case c.want == "" && !bytes.Equal(c.fake.object, servertest.Content(t, src)):
				t.Error("the object differs")
			case c.want != "" && (err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(c.want)) || cli.ExitCode(err) != c.code):
				t.Errorf("%v, want one with %q and exit code %d", err, c.want, c.code)
			}
		})
	}
}

// TestS3LateComplete has a gateway that does not wait for the server behind it,
// and answers that get lost, with ETags that are MD5 and others.
func TestS3LateComplete(t *testing.T) {
	for _, opaque := range []bool{false, true} {
		for _, late := range []int{0, 3} {
			fake := &fakeServer{}
			if opaque {
				fake.etag = func(n int, _ []byte) string { return fmt.Sprintf("opaque%d", n) }
			}
			var object []byte
			sum, looks := "", 0
			fake.odd = func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case r.Method == http.MethodHead:
					if looks++; object != nil && looks > late {
						fake.object = object
					}
					w.Header().Set("X-Amz-Checksum-Sha256", sum)
				case isComplete(r) && fake.upload:
					var parts []sent
					for n := range len(fake.parts) {
						object = append(object, fake.parts[n+1]...)
						parts = append(parts, sent{sha256: sha256Text(fake.parts[n+1])})
					}
					sum, _ = compositeSHA256(parts)
					fake.tag, fake.upload, looks = fake.composite()+"x", false, 0
					if !opaque {
						fake.tag, sum = fake.composite(), ""
					}
					if late == 0 {
						panic(http.ErrAbortHandler)
					}
					refuse(w, r, http.StatusGatewayTimeout, "GatewayTimeout")
					return true
				}
				return false
			}
			startFake(t, fake)
			src := servertest.NewSource(10, servertest.Data(0, 10))
			if err := export(t, "s3://bucket/key", src, &servertest.Log{}, servers.Options{Retries: 1}); err != nil || !bytes.Equal(fake.object, servertest.Content(t, src)) {
				t.Errorf("opaque %v, %d looks late: %v", opaque, late, err)
			}
		}
	}
}

// TestS3StillJoining has a server that says that all is done while it still joins
// the parts, as it was asked to by a request whose answer was lost.
func TestS3StillJoining(t *testing.T) {
	fake := &fakeServer{}
	var object []byte
	asked, looks := 0, 0
	fake.odd = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodHead && asked > 1:
			if looks++; looks > 2 {
				fake.object, fake.tag = object, fake.composite()
			}
		case isComplete(r):
			if asked++; asked == 1 {
				object = fake.parts[1]
				panic(http.ErrAbortHandler)
			}
			io.WriteString(w, "<CompleteMultipartUploadResult><Bucket>bucket</Bucket><ETag>x</ETag></CompleteMultipartUploadResult>")
			return true
		}
		return false
	}
	startFake(t, fake)
	if err := export(t, "s3://bucket/key", servertest.NewSource(10, servertest.Data(0, 10)), &servertest.Log{}, servers.Options{}); err != nil || fake.object == nil {
		t.Errorf("%v, object of %d bytes", err, len(fake.object))
	}
}

// TestS3Unrecognised has a gateway without patience before a server whose ETags
// say nothing.
func TestS3Unrecognised(t *testing.T) {
	fake := &fakeServer{noChecksums: true, etag: func(n int, _ []byte) string { return fmt.Sprintf("opaque%d", n) }}
	fake.odd = func(w http.ResponseWriter, r *http.Request) bool {
		if !isComplete(r) {
			return false
		}
		fake.object, fake.tag = []byte("somebody's"), "opaque"
		refuse(w, r, http.StatusGatewayTimeout, "GatewayTimeout")
		return true
	}
	startFake(t, fake)
	u, err := Open(t.Context(), "s3://bucket/key", servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close(false)
	if err := u.Send(t.Context(), servertest.NewSource(10, servertest.Data(0, 10)), &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	if err := u.Publish(t.Context()); cli.ExitCode(err) != cli.ExitExists || !strings.Contains(err.Error(), "may be there") {
		t.Errorf("%v, want that something is there", err)
	}
}

// TestS3ResumeUnlisted goes on where nobody tells which parts are there.
func TestS3ResumeUnlisted(t *testing.T) {
	fake := &fakeServer{odd: times(-1, http.StatusForbidden, "AccessDenied", isList)}
	startFake(t, fake)
	log := &servertest.Log{}
	if err := export(t, "s3://bucket/key", servertest.NewSource(10, servertest.Data(0, 10)), log, servers.Options{Resume: []byte(`{"UploadID":"one","PartSize":16777216}`)}); err != nil {
		t.Fatal(err)
	}
	if len(log.Said) != 1 || !strings.Contains(log.Said[0], "anew") {
		t.Errorf("said %q", log.Said)
	}
}

func TestS3HeldByAnother(t *testing.T) {
	for name, condition := range map[string]bool{"condition": true, "looked for": false} {
		fake := &fakeServer{}
		fake.odd = func(w http.ResponseWriter, r *http.Request) bool {
			if condition && isComplete(r) && r.Header.Get("If-None-Match") == "*" {
				fake.object = []byte("another")
				refuse(w, r, http.StatusPreconditionFailed, "PreconditionFailed")
				return true
			}
			return false
		}
		startFake(t, fake)
		u, err := Open(t.Context(), "s3://bucket/key", servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Send(t.Context(), servertest.NewSource(10, servertest.Data(0, 10)), &servertest.Log{}); err != nil {
			t.Fatal(err)
		}
		if !condition {
			fake.object = []byte("another")
		}
		if err := u.Publish(t.Context()); cli.ExitCode(err) != cli.ExitExists || string(fake.object) != "another" {
			t.Errorf("%s: %v, want exit code %d", name, err, cli.ExitExists)
		}
		if err := u.Close(false); err != nil || fake.upload {
			t.Errorf("%s: the upload is left over: %v", name, err)
		}
	}
}

// TestS3ResumeByMD5 goes on at a server without SHA-256, and sends again what
// is not the same.
func TestS3ResumeByMD5(t *testing.T) {
	fake := &fakeServer{noChecksums: true}
	startFake(t, fake)
	src := servertest.NewSource(2*usualPart+7, servertest.Data(0, 2*usualPart+7))
	u, err := Open(t.Context(), "s3://bucket/key", servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	log := &servertest.Log{}
	if err := u.Send(t.Context(), src, log); err != nil {
		t.Fatal(err)
	}
	u.Close(true)
	fake.parts[2] = slices.Clone(fake.parts[2])
	fake.parts[2][5]++
	delete(fake.parts, 3)
	log = &servertest.Log{State: log.State}
	if err := export(t, "s3://bucket/key", src, log, servers.Options{Resume: log.State}); err != nil {
		t.Fatal(err)
	}
	if log.KeptBytes.Load() != usualPart || log.SentBytes.Load() != usualPart+7 {
		t.Errorf("%d bytes kept and %d sent", log.KeptBytes.Load(), log.SentBytes.Load())
	}
	if !bytes.Equal(fake.object, servertest.Content(t, src)) {
		t.Error("the object differs")
	}
}

func TestS3BadState(t *testing.T) {
	for _, state := range []string{`{`, `"x"`, `{"UploadID":"one","PartSize":1}`, `{"UploadID":"one","PartSize":-5}`, `{"UploadID":"two","PartSize":16777216}`} {
		startFake(t, &fakeServer{})
		log := &servertest.Log{}
		if err := export(t, "s3://bucket/key", servertest.NewSource(10, servertest.Data(0, 10)), log, servers.Options{Resume: []byte(state)}); err != nil {
			t.Errorf("%s: %v", state, err)
		}
		if len(log.Said) != 1 || !strings.Contains(log.Said[0], "anew") {
			t.Errorf("%s: said %q", state, log.Said)
		}
	}
}

func TestS3TooLarge(t *testing.T) {
	startFake(t, &fakeServer{})
	u, err := Open(t.Context(), "s3://bucket/key", servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close(false)
	if err := u.(servers.Checker).Check(t.Context(), servers.File{Size: maxObject}); err != nil {
		t.Error(err)
	}
	if err := u.(servers.Checker).Check(t.Context(), servers.File{Size: maxObject + 1}); cli.ExitCode(err) != cli.ExitNoSpace || cli.Hint(err) == "" {
		t.Errorf("%v, want exit code %d and a hint", err, cli.ExitNoSpace)
	}
}

func TestS3Hints(t *testing.T) {
	for code, hint := range map[string]string{
		"RequestTimeTooSkewed": "clock", "AccessDenied": "s3:PutObject", "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY",
		"InvalidAccessKeyId": "AWS_ACCESS_KEY_ID", "NoSuchBucket": "make the bucket", "ExpiredToken": "new keys", "PermanentRedirect": "AWS_REGION",
	} {
		startFake(t, &fakeServer{odd: times(-1, http.StatusForbidden, code, func(*http.Request) bool { return true })})
		_, err := Open(t.Context(), "s3://bucket/key", servers.Options{})
		if cli.ExitCode(err) != cli.ExitServer || !strings.Contains(err.Error(), code) || !strings.Contains(cli.Hint(err), hint) {
			t.Errorf("%s: %v (%s)", code, err, cli.Hint(err))
		}
	}
}

func TestS3Certificates(t *testing.T) {
	server := httptest.NewUnstartedServer(&fakeServer{})
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that fails
	server.StartTLS()
	defer server.Close()
	env(t, server.URL, "id", "secret")
	_, err := Open(t.Context(), "s3://bucket/key", servers.Options{})
	if cli.ExitCode(err) != cli.ExitServer || !strings.Contains(cli.Hint(err), "--cacert") {
		t.Errorf("%v (%s), want a hint", err, cli.Hint(err))
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	mustExport(t, "s3://bucket/key", servertest.NewSource(100, servertest.Data(0, 100)), servers.Options{CACert: path})
}

// TestS3BrokenSource sends what can't be read: that is not the server's fault.
func TestS3BrokenSource(t *testing.T) {
	for name, parallel := range map[string]int{"in memory": 1, "read twice": mostMemory / usualPart * 2} {
		startFake(t, &fakeServer{})
		u, err := Open(t.Context(), "s3://bucket/key", servers.Options{Connections: parallel})
		if err != nil {
			t.Fatal(err)
		}
		src := brokenSource{servertest.NewSource(int64(parallel)*usualPart, servertest.Data(0, 10))}
		if err := u.Send(t.Context(), src, &servertest.Log{}); !errors.Is(err, errBroken) || cli.ExitCode(err) != cli.ExitFailure {
			t.Errorf("%s: %v, want %v and exit code %d", name, err, errBroken, cli.ExitFailure)
		}
		if err := u.Close(false); err != nil {
			t.Error(err)
		}
	}
}

// errBroken is what a source fails with.
var errBroken = errors.New("broken")

// brokenSource can't be read.
type brokenSource struct{ *servertest.Source }

func (brokenSource) ReadAt([]byte, int64) (int, error) { return 0, errBroken }
