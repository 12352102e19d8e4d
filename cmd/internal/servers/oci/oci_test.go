package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
)

func TestParseRef(t *testing.T) {
	for _, c := range []struct {
		dest, url, scheme string
	}{
		{"oci://r.example/vm/web", "oci://r.example/vm/web:latest", "https"},
		{"oci://me@r.example:5000/web:v1.2", "oci://r.example:5000/web:v1.2", "https"},
		{"OCI://localhost:5000/web", "oci://localhost:5000/web:latest", "http"},
		{"oci://127.0.0.1/web", "oci://127.0.0.1/web:latest", "http"},
		{"oci://[::1]:5000/a/b", "oci://[::1]:5000/a/b:latest", "http"},
		{"oci+http://r.example/a", "oci+http://r.example/a:latest", "http"},
		{"oci://r.example/vms/", "oci://r.example/vms/disk:latest", "https"},
		{"oci://r.example/a@sha256:" + strings.Repeat("0a", 32), "oci://r.example/a@sha256:" + strings.Repeat("0a", 32), "https"},
	} {
		ref, err := parseRef(c.dest, "disk.qcow2", false)
		if err != nil || ref.String() != c.url || ref.scheme != c.scheme {
			t.Errorf("%s: %s, %s, %v", c.dest, ref, ref.scheme, err)
		}
	}
	if ref, err := parseRef("oci://localhost/a", "", true); err != nil || ref.scheme != "https" {
		t.Errorf("with certificates: %s, %v", ref.scheme, err)
	}
	for _, dest := range []string{
		"oci://", "oci:///a", "oci://h:x/a", "oci://h:0/a", "oci://h/A", "oci://h/a//b", "oci://h/a:", "oci://h/a:b:c", "oci://h/a?b", "oci://h/a#b",
		"oci://me:secret@h/a", "oci://me:secret@h:x/a", "oci://h/a@sha256:12", "oci://h/../a", "oci://h/a b", "oci://h",
	} {
		_, err := parseRef(dest, "", false)
		e, ok := errors.AsType[*cli.Error](err)
		if !ok || e.Code != cli.ExitUsage || e.Hint == "" {
			t.Errorf("%s: %v, want an error with a hint and exit code %d", dest, err, cli.ExitUsage)
		} else if strings.Contains(e.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", dest, err)
		}
	}
}

func TestParseChallenge(t *testing.T) {
	for text, want := range map[string]challenge{
		`Bearer realm="https://a/t",service="s p, q",scope="x:y:pull,push"`: {"bearer", "https://a/t", "s p, q"},
		`bearer service=s, realm="https://a/t"`:                             {"bearer", "https://a/t", "s"},
		`Basic realm="r"`:                                                   {"basic", "r", ""},
		`Basic`:                                                             {scheme: "basic"},
		`Bearer realm="unterminated`:                                        {"bearer", "unterminated", ""},
		``:                                                                  {},
	} {
		if got := parseChallenge(text); got != want {
			t.Errorf("%s: %+v", text, got)
		}
	}
}

func TestRegistryLogin(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(dir, "run"))
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "conf"))
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir)
	t.Setenv("FLATIMG_PASSWORD", "")
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("config.json", `{"auths": {"a:5000": {"auth": "bWU6czplY3JldA=="}, "a:5000/vm": {"auth": "dm06cw=="}, "id": {"identitytoken": "i"},
		"https://index.docker.io/v1/": {"auth": "aHViOnM="}}, "credHelpers": {"helped": "test"}}`, 0o600)
	write("docker-credential-test", "#!/bin/sh\nread host\necho '{\"Username\": \"'$host'\", \"Secret\": \"s\"}'\n", 0o700)
	write("password", "typed\n", 0o600)
	for _, c := range []struct {
		dest string
		o    servers.Options
		want login
	}{
		{"oci://a:5000/web", servers.Options{}, login{user: "me", password: "s:ecret"}},
		{"oci://a:5000/vm/web", servers.Options{}, login{user: "vm", password: "s"}},
		{"oci://other@a:5000/web", servers.Options{}, login{}},
		{"oci://a:5000/web", servers.Options{User: "u", PasswordFile: filepath.Join(dir, "password")}, login{user: "u", password: "typed"}},
		{"oci://id/web", servers.Options{}, login{identity: "i"}},
		{"oci://docker.io/me/web", servers.Options{}, login{user: "hub", password: "s"}},
		{"oci://helped/web", servers.Options{}, login{user: "helped", password: "s"}},
		{"oci://unknown/web", servers.Options{}, login{}},
	} {
		ref, err := parseRef(c.dest, "", false)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := registryLogin(t.Context(), ref, c.o); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.dest, got, err, c.want)
		}
	}
}

func TestLayer(t *testing.T) {
	for _, size := range []int64{0, 1, 511, 512, 513, 100_000} {
		src := servertest.NewSource(size, servertest.Data(0, size/3), servertest.Data(size/2, size/4))
		l, err := newLayer(src, "web.qcow2")
		if err != nil {
			t.Fatal(err)
		}
		whole, err := io.ReadAll(l.reader(0, l.size, nil))
		if err != nil || int64(len(whole)) != l.size {
			t.Fatalf("%d bytes: %d of %d, %v", size, len(whole), l.size, err)
		}
		var sent int64
		for _, off := range []int64{1, 600, 1024, 1500, l.size - 1} {
			off = min(off, l.size)
			part, err := io.ReadAll(l.reader(off, l.size, func(n int64) { sent += n }))
			if err != nil || !bytes.Equal(part, whole[off:]) {
				t.Errorf("%d bytes: those from %d on differ, %v", size, off, err)
			}
		}
		files := tar.NewReader(bytes.NewReader(whole))
		if h, err := files.Next(); err != nil || h.Name != "disk/" || h.Typeflag != tar.TypeDir {
			t.Errorf("%d bytes: %+v, %v; want the folder", size, h, err)
		}
		h, err := files.Next()
		if err != nil || h.Name != "disk/web.qcow2" || h.Uid != 107 || h.Gid != 107 || h.Mode != 0o440 {
			t.Errorf("%d bytes: %+v, %v; want the disk", size, h, err)
		}
		content, err := io.ReadAll(files)
		want := make([]byte, size)
		src.ReadAt(want, 0)
		if err != nil || !bytes.Equal(content, want) {
			t.Errorf("%d bytes: the content differs, %v", size, err)
		}
		if _, err := files.Next(); err != io.EOF {
			t.Errorf("%d bytes: %v after the disk, want its end", size, err)
		}
	}
}

// TestLayerHuge has sizes that no old tar header holds.
func TestLayerHuge(t *testing.T) {
	src := &servertest.Source{Reader: bytes.NewReader(nil), Runs: nil}
	huge := hugeSource{src, 1 << 40}
	l, err := newLayer(huge, strings.Repeat("ü", 100)+".raw")
	if err != nil {
		t.Fatal(err)
	}
	files := tar.NewReader(l.reader(0, l.size, nil))
	files.Next()
	if h, err := files.Next(); err != nil || h.Size != 1<<40 || len(h.Name) != 5+200+4 {
		t.Errorf("%+v, %v", h, err)
	}
}

// hugeSource has nothing but zeros.
type hugeSource struct {
	servers.Source
	size int64
}

func (s hugeSource) Size() int64                                  { return s.size }
func (s hugeSource) NextData(int64) (start, end int64, err error) { return s.size, s.size, nil }

// sent in three chunks of 2 MiB

// export brings the test's source to a registry.
func export(ctx context.Context, dest string, o servers.Options, log *servertest.Log) error {
	o.Name = "web.raw"
	up, err := Open(ctx, dest, o)
	if err != nil {
		return err
	}
	up.(*upload).chunk = 2 << 20
	if err := send(ctx, up, log); err != nil {
		return errors.Join(err, up.Close(log.State != nil))
	}
	return up.Close(false)
}

func send(ctx context.Context, up servers.Upload, log *servertest.Log) error {
	if err := up.(servers.Checker).Check(ctx, servers.File{Format: "raw", Size: servertest.MixedSize}); err != nil {
		return err
	}
	if err := up.Send(ctx, servertest.MixedSource(), log); err != nil {
		return err
	}
	if _, err := up.(servers.Verifier).Verify(ctx, nil); err != nil {
		return err
	}
	var back bytes.Buffer
	if err := up.(servers.ReadBacker).ReadBack(ctx, &back, 99_995, 10); err != nil || back.String() != testBytes(99_995, 10) {
		return errors.Join(errors.New("read back something else"), err)
	}
	return up.Publish(ctx)
}

func testBytes(off, n int64) string {
	b := make([]byte, n)
	servertest.MixedSource().ReadAt(b, off)
	return string(b)
}

// checkImage fetches the image and compares it.
func checkImage(t *testing.T, src string, o servers.Options) {
	t.Helper()
	d, err := OpenSource(t.Context(), src, o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != servertest.MixedSize || d.(servers.Namer).FileName() != "web.raw" {
		t.Errorf("%d bytes of %s", d.Size(), d.(servers.Namer).FileName())
	}
	if d.Version() == "" { // packed
		if _, err := d.(servers.Summer).Checksum(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a checksum of what was not read: %v", err)
		}
	}
	got, want := sha256.New(), sha256.New()
	if err := d.Read(t.Context(), got, 0, -1); err != nil {
		t.Fatal(err)
	}
	if c, err := d.(servers.Summer).Checksum(t.Context()); err != nil || !bytes.Equal(c.Sum, got.Sum(nil)) {
		t.Errorf("%+v, %v", c, err)
	}
	io.Copy(want, servertest.MixedSource().Reader)
	if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Error("what was fetched differs")
	}
}

func TestOCI(t *testing.T) {
	patch := `^PATCH `
	for name, c := range map[string]struct {
		set func(f *fakeRegistry)
		// patches is how many requests carry the layer.
		patches int
		// anew: all is sent more than once, and log told so.
		anew bool
	}{
		"plain":             {func(*fakeRegistry) {}, 3, false},
		"basic":             {func(f *fakeRegistry) { f.auth = "basic" }, 3, false},
		"bearer":            {func(f *fakeRegistry) { f.auth = "bearer" }, 3, false},
		"cut":               {func(f *fakeRegistry) { f.cuts = []int64{300_000, 0, -1, 600_000} }, 6, false},
		"cut and forgotten": {func(f *fakeRegistry) { f.cuts, f.forgetful = []int64{-1, 300_000}, true }, 5, true},
		"no chunks":         {func(f *fakeRegistry) { f.noChunks = true }, 1, true},
		"errors": {func(f *fakeRegistry) {
			f.failures, f.status, f.failing = regexp.MustCompile(`PATCH|PUT|POST`), http.StatusServiceUnavailable, 2
		}, 3, false},
		"busy at first": {func(f *fakeRegistry) {
			f.failures, f.status, f.failing = regexp.MustCompile(`HEAD .*/manifests/`), http.StatusServiceUnavailable, 1
		}, 3, false},
		"a note rewritten": {func(f *fakeRegistry) {
			f.failures, f.status, f.failing, f.code = regexp.MustCompile(`PUT .*/manifests/`), http.StatusBadRequest, 2, "DIGEST_INVALID"
		}, 3, false},
		"a gateway without patience": {func(f *fakeRegistry) {
			f.loseAnswers, f.lost, f.late = regexp.MustCompile(`PUT .*/uploads/`), http.StatusGatewayTimeout, 2
		}, 3, false},
		"answer to the blob lost":     {func(f *fakeRegistry) { f.loseAnswers = regexp.MustCompile(`PUT .*/uploads/`) }, 3, false},
		"answer to the manifest lost": {func(f *fakeRegistry) { f.loseAnswers = regexp.MustCompile(`PUT .*/manifests/`) }, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFakeRegistry(t)
			c.set(f)
			o := servers.Options{User: "me", PasswordFile: passwordFile(t, "secret")}
			log := &servertest.Log{}
			if err := export(t.Context(), f.dest("vm/web:v1"), o, log); err != nil {
				t.Fatal(err, log.Said)
			}
			if n := f.count(patch); n != c.patches && f.auth != "bearer" {
				t.Errorf("%d requests for the layer, want %d", n, c.patches)
			}
			if log.SentBytes.Load() != servertest.MixedData {
				t.Errorf("%d bytes counted, want %d; %s", log.SentBytes.Load(), servertest.MixedData, log.Said)
			}
			if anew := len(log.Said) > 0 && strings.Contains(strings.Join(log.Said, ";"), "anew"); anew != c.anew && !f.noChunks {
				t.Errorf("said %q", log.Said)
			}
			if f.left() > 0 && !f.forgetful {
				t.Errorf("%d uploads are left over", f.left())
			}
			f.auth = "" // the token's scope is another one
			checkImage(t, f.dest("vm/web:v1"), servers.Options{})
			if err := export(t.Context(), f.dest("vm/web:v1"), o, &servertest.Log{}); cli.ExitCode(err) != cli.ExitExists {
				t.Errorf("again: %v, want that it exists", err)
			}
			o.Force = true
			if err := export(t.Context(), f.dest("vm/web:v1"), o, &servertest.Log{}); err != nil {
				t.Errorf("with force: %v", err)
			}
		})
	}
}

func passwordFile(t *testing.T, text string) string {
	name := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestOCIResume(t *testing.T) {
	for _, forgetful := range []bool{false, true} {
		for _, cut := range []int64{0, 1000, 900_000} {
			f := newFakeRegistry(t)
			f.cuts, f.forgetful = []int64{-1, cut}, forgetful
			log := &servertest.Log{}
			if err := export(t.Context(), f.dest("vm/web"), servers.Options{Retries: -1}, log); cli.ExitCode(err) != cli.ExitServer {
				t.Fatalf("cut: %v", err)
			}
			if f.named("latest") {
				t.Error("the tag is there already")
			}
			second := &servertest.Log{}
			if err := export(t.Context(), f.dest("vm/web"), servers.Options{Resume: log.State}, second); err != nil {
				t.Fatal(err)
			}
			checkImage(t, f.dest("vm/web"), servers.Options{})
			lost := forgetful && cut > 0
			if (second.KeptBytes.Load() > 0) == lost || second.KeptBytes.Load()+second.SentBytes.Load() != servertest.MixedData || (len(second.Said) > 0) != lost {
				t.Errorf("forgetful %v, cut at %d: %d bytes kept, %d sent; said %q", forgetful, cut, second.KeptBytes.Load(), second.SentBytes.Load(), second.Said)
			}
		}
	}
}

// TestOCIResumeDone goes on with a run that ended before the manifest was put.
func TestOCIResumeDone(t *testing.T) {
	f := newFakeRegistry(t)
	f.failures, f.status, f.failing = regexp.MustCompile(`PUT .*/manifests/`), http.StatusForbidden, 1
	log := &servertest.Log{}
	if err := export(t.Context(), f.dest("vm/web"), servers.Options{}, log); cli.ExitCode(err) != cli.ExitServer || cli.Hint(err) == "" {
		t.Fatalf("%v, want that the registry refuses", err)
	}
	patches := f.count("PATCH")
	second := &servertest.Log{}
	if err := export(t.Context(), f.dest("vm/web"), servers.Options{Resume: log.State}, second); err != nil {
		t.Fatal(err)
	}
	if second.KeptBytes.Load() != servertest.MixedData || f.count("PATCH") != patches {
		t.Errorf("%d bytes kept", second.KeptBytes.Load())
	}
	checkImage(t, f.dest("vm/web"), servers.Options{})
}

// TestOCIResumePublished goes on with a run that was killed when the manifest
// was there.
func TestOCIResumePublished(t *testing.T) {
	f := newFakeRegistry(t)
	log := &servertest.Log{}
	if err := export(t.Context(), f.dest("vm/web"), servers.Options{}, log); err != nil {
		t.Fatal(err)
	}
	second := &servertest.Log{}
	if err := export(t.Context(), f.dest("vm/web"), servers.Options{Resume: log.State}, second); err != nil {
		t.Fatal(err)
	}
	if second.SentBytes.Load() != 0 || second.KeptBytes.Load() != servertest.MixedData {
		t.Errorf("%d bytes sent, %d kept", second.SentBytes.Load(), second.KeptBytes.Load())
	}
}

func TestOCIRemove(t *testing.T) {
	f := newFakeRegistry(t)
	f.cuts = []int64{-1, 3}
	log := &servertest.Log{}
	if err := export(t.Context(), f.dest("vm/web"), servers.Options{Retries: -1}, log); err == nil || f.left() != 1 {
		t.Fatalf("%v, %d uploads", err, f.left())
	}
	up, err := Open(t.Context(), f.dest("vm/web"), servers.Options{Resume: log.State, Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Close(false); err != nil || f.left() != 0 {
		t.Errorf("%v, %d uploads are left over", err, f.left())
	}
}

func TestOCIRefused(t *testing.T) {
	f := newFakeRegistry(t)
	for _, auth := range []string{"basic", "bearer"} {
		f.auth = auth
		_, err := Open(t.Context(), f.dest("vm/web"), servers.Options{User: "me", PasswordFile: passwordFile(t, "wrong")})
		if cli.ExitCode(err) != cli.ExitServer || cli.Hint(err) == "" || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: %v", auth, err)
		}
	}
	f.auth = ""
	up, err := Open(t.Context(), f.dest("other"), servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	if err := up.(servers.Checker).Check(t.Context(), servers.File{Format: "raw"}); cli.ExitCode(err) != cli.ExitServer || !strings.Contains(err.Error(), "NAME_UNKNOWN") {
		t.Errorf("%v, want what the registry says", err)
	}
	if err := up.(servers.Checker).Check(t.Context(), servers.File{Format: "vmdk"}); cli.ExitCode(err) != cli.ExitUsage {
		t.Errorf("%v, want that the format is refused", err)
	}
	if _, err := OpenSource(t.Context(), f.dest("vm/web:none"), servers.Options{}); cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("%v, want that there is no such image", err)
	}
}

// TestOCIForeign leads an upload elsewhere.
func TestOCIForeign(t *testing.T) {
	ref, err := parseRef("oci://r.example/a", "", false)
	if err != nil {
		t.Fatal(err)
	}
	c := &registry{ref: ref}
	for location, want := range map[string]string{
		"http://r.example/v2/u":   "https://r.example/v2/u",
		"https://store.example/u": "https://store.example/u",
		"http://store.example/u":  "",
		"https://me:x@r.example/": "",
		"ftp://store.example/":    "",
		"/v2/a/u?x":               "https://r.example/v2/a/u?x",
	} {
		req, _ := http.NewRequest("POST", "https://r.example/v2/a/", nil)
		at, err := c.location(&http.Response{Request: req, Header: http.Header{"Location": {location}}})
		if (err == nil) != (want != "") || err == nil && at.String() != want {
			t.Errorf("%s: %v, %v", location, at, err)
		}
	}
}

// TestOCIPacked fetches images that others have made.
func TestOCIPacked(t *testing.T) {
	f := newFakeRegistry(t)
	l, _ := newLayer(servertest.MixedSource(), "web.raw")
	plain, _ := io.ReadAll(l.reader(0, l.size, nil))
	var zipped, zstded, other bytes.Buffer
	g := gzip.NewWriter(&zipped)
	g.Write(plain)
	g.Close()
	z, _ := zstd.NewWriter(&zstded)
	z.Write(plain)
	z.Close()
	w := tar.NewWriter(&other)
	w.WriteHeader(&tar.Header{Name: "etc/passwd", Size: 1})
	w.Write([]byte("x"))
	w.Close()
	put := func(tag string, digestOf func(b []byte) descriptor, parts ...[]byte) {
		m := manifest{SchemaVersion: 2, MediaType: typeManifest}
		for _, b := range parts {
			d := digestOf(b)
			f.blobs[d.Digest] = b
			m.Layers = append(m.Layers, d)
		}
		f.manifests[tag], _ = json.Marshal(m)
	}
	plainLayer := func(b []byte) descriptor { return describe(typeLayer, b) }
	put("gzip", func(b []byte) descriptor { return describe(typeLayer+"+gzip", b) }, zipped.Bytes())
	put("zstd", func(b []byte) descriptor { return describe(typeLayer+"+zstd", b) }, zstded.Bytes())
	put("two", plainLayer, plain, other.Bytes())
	put("none", plainLayer, other.Bytes())
	put("strange", func(b []byte) descriptor { return describe("text/plain", b) }, plain)
	for _, tag := range []string{"gzip", "zstd", "two"} {
		checkImage(t, f.dest("vm/web:"+tag), servers.Options{})
	}
	for _, tag := range []string{"none", "strange"} {
		if _, err := OpenSource(t.Context(), f.dest("vm/web:"+tag), servers.Options{}); cli.ExitCode(err) != cli.ExitServer {
			t.Errorf("%s: %v", tag, err)
		}
	}
	index := manifest{SchemaVersion: 2, MediaType: typeIndex}
	for _, p := range []platform{{"s390x", "linux"}, {"amd64", "linux"}, {"unknown", "unknown"}} {
		d := describe(typeManifest, f.manifests["gzip"])
		d.Platform = &p
		index.Manifests = append(index.Manifests, d)
	}
	f.manifests[index.Manifests[0].Digest] = f.manifests["gzip"]
	f.manifests["index"], _ = json.Marshal(index)
	checkImage(t, f.dest("vm/web:index"), servers.Options{})

	// A layer whose end was changed is noticed, however it is read.
	for digest, b := range f.blobs {
		if b = bytes.Clone(b); int64(len(b)) == l.size {
			b[len(b)-1]++
			f.blobs[digest] = b
		}
	}
	d, err := OpenSource(t.Context(), f.dest("vm/web:two"), servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Read(t.Context(), io.Discard, 0, -1); cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("%v, want that the digest differs", err)
	}
	content, _ := io.ReadAll(servertest.MixedSource().Reader)
	if c, err := d.(servers.Summer).Checksum(t.Context()); err != nil || servertest.IsOf(c, content) {
		t.Errorf("%+v, %v, want the checksum of something else", c, err)
	}
}

// TestOCIReadInParts goes on where the line broke, or an earlier run ended. What
// comes before is not fetched again, unless the layer is packed.
func TestOCIReadInParts(t *testing.T) {
	f := newFakeRegistry(t)
	if err := export(t.Context(), f.dest("vm/web"), servers.Options{}, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	want, _ := io.ReadAll(servertest.MixedSource().Reader)
	f.failures, f.status, f.failing = regexp.MustCompile(`GET .*/manifests/`), http.StatusBadGateway, 1
	d, err := OpenSource(t.Context(), f.dest("vm/web"), servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !digestPattern.MatchString(d.Version()) {
		t.Errorf("version %q", d.Version())
	}
	got := bytes.NewBuffer(bytes.Clone(want[:1<<20]))
	for _, off := range []int64{1 << 20, 3 << 20} {
		if err := d.Read(t.Context(), got, off, 2<<20); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("what was read differs")
	}
	c, err := d.(servers.Summer).Checksum(t.Context())
	if err != nil || !servertest.IsOf(c, want) || servertest.IsOf(c, want[1:]) {
		t.Errorf("checksum %+v, %v", c, err)
	}
}

// TestOCITaken has another export put its image after this one, without force.
func TestOCITaken(t *testing.T) {
	f := newFakeRegistry(t)
	f.taken = []byte(`{"schemaVersion":2}`)
	err := export(t.Context(), f.dest("vm/web:v1"), servers.Options{}, &servertest.Log{})
	if cli.ExitCode(err) != cli.ExitExists {
		t.Errorf("%v, want that it exists", err)
	}
}

// TestOCIForeignChallenge asks for the login where a redirect leads.
func TestOCIForeignChallenge(t *testing.T) {
	asked := 0
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); ok || r.URL.Path == "/token" {
			asked++
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer store.Close()
	registry := httptest.NewServer(http.RedirectHandler(store.URL, http.StatusTemporaryRedirect))
	defer registry.Close()
	_, err := OpenSource(t.Context(), "oci"+strings.TrimPrefix(registry.URL, "http")+"/vm/web", servers.Options{User: "me", PasswordFile: passwordFile(t, "secret")})
	if cli.ExitCode(err) != cli.ExitServer || asked > 0 {
		t.Errorf("the login was sent %d times; %v", asked, err)
	}
}
