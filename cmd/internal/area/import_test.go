package area

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/schemes"
	"flatimg/layers"
)

// contentOf reads an image of any format.
func contentOf(t *testing.T, path string) (content []byte, format string) {
	t.Helper()
	im, err := layers.Open(path, layers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	content = make([]byte, im.Size())
	if _, err := im.ReadAt(content, 0); err != nil {
		t.Fatal(err)
	}
	return content, im.Layers()[len(im.Layers())-1].Format()
}

func TestImportLocal(t *testing.T) {
	dir := t.TempDir()
	raw, content := rawImage(t, dir, "web.img")
	qcow2 := filepath.Join(dir, "web.qcow2")
	if _, err := Export(t.Context(), Options{Image: raw, Dest: qcow2}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, source, image, format string
		want                        string // its format
		asIs                        bool
	}{
		{"as it is", qcow2, "new.qcow2", "", "qcow2", true},
		{"no extension", qcow2, "new", "", "qcow2", true},
		{"into a folder", qcow2, "folder", "", "qcow2", true},
		{"converted by extension", qcow2, "new.raw", "", "raw", false},
		{"converted by --format", raw, "new.disk", "qcow2", "qcow2", false},
		{"converted into a folder", raw, "folder/", "qcow2", "qcow2", false},
		{"a URL", "file://" + raw, "new.raw", "", "raw", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := t.TempDir()
			if err := os.Mkdir(filepath.Join(out, "folder"), 0o700); err != nil {
				t.Fatal(err)
			}
			o := ImportOptions{Source: c.source, Image: filepath.Join(out, c.image), Format: c.format}
			if strings.HasSuffix(c.image, "/") {
				o.Image += "/"
			}
			r, err := Import(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(c.image, "folder") && filepath.Dir(r.Dest) != filepath.Join(out, "folder") {
				t.Errorf("at %s", r.Dest)
			}
			got, format := contentOf(t, r.Dest)
			if !bytes.Equal(got, content) || format != c.want {
				t.Errorf("%d bytes of %s", len(got), format)
			}
			if c.asIs {
				path, _ := schemes.LocalPath(c.source)
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				checkFile(t, r.Dest, want)
			}
			if _, err := Import(t.Context(), o); cli.ExitCode(err) != cli.ExitExists {
				t.Errorf("again: %v", err)
			}
			o.Force = true
			if _, err := Import(t.Context(), o); err != nil {
				t.Errorf("--force: %v", err)
			}
		})
	}
}

func TestImportFromServer(t *testing.T) {
	s := newFakeServer(t)
	_, content := rawImage(t, s.dir, "web.img")
	out := t.TempDir()
	sum := sha256.Sum256(content)
	o := ImportOptions{
		Source: s.url("web.img"), Image: out + "/", Area: t.TempDir(), SHA256: sum[:],
		Server: servers.Options{SSH: s.command(), Retries: -1},
	}
	for _, connections := range []int{1, 4} {
		o.Server.Connections, o.Force = connections, connections > 1
		r, err := Import(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if r.VerifiedBy != "--sha256" || r.Sent != 8<<20 || r.Dest != filepath.Join(out, "web.img") {
			t.Errorf("%+v", r)
		}
		checkFile(t, r.Dest, content)
		checkEmpty(t, o.Area)
	}
	o.SHA256 = nil
	if r, err := Import(t.Context(), o); err != nil || !strings.HasSuffix(r.VerifiedBy, "on the server") || !bytes.Equal(r.SHA256, sum[:]) {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestImportGoesOn cuts the line and goes on.
func TestImportGoesOn(t *testing.T) {
	checkLeaks(t)
	s := newFakeServer(t)
	_, content := rawImage(t, s.dir, "web.img")
	o := ImportOptions{
		Source: s.url("web.img"), Image: filepath.Join(t.TempDir(), "web.img"), Area: t.TempDir(),
		Server: servers.Options{SSH: s.command(), Retries: -1, Connections: 1},
	}
	// Of the requests for 32 KiB, of 26 bytes each, 64 are under way at most:
	// what the first of these bring has come before the last are sent. There
	// are as many that a third of them is enough for each break.
	const cut = 3000
	for range 2 {
		s.breakAfter(t, cut)
		if _, err := Import(t.Context(), o); cli.ExitCode(err) != cli.ExitServer {
			t.Fatal(err)
		}
		if _, err := os.Stat(o.Image); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	jobs, err := Jobs(o.Area)
	if err != nil || len(jobs) != 1 || !jobs[0].Import || jobs[0].Done == 0 || jobs[0].Data != 8<<20 {
		t.Fatalf("%+v, %v", jobs, err)
	}
	s.breakAfter(t, -1)
	o.Resume = true
	r, err := Import(t.Context(), o)
	if err != nil || r.Resumed == 0 || r.Resumed+r.Sent != 8<<20 {
		t.Fatalf("%+v, %v", r, err)
	}
	checkFile(t, o.Image, content)
	checkEmpty(t, o.Area)

	// Of another version it begins anew.
	o.Resume, o.Force = false, true
	s.breakAfter(t, cut)
	if _, err := Import(t.Context(), o); err == nil {
		t.Fatal("not cut")
	}
	s.breakAfter(t, -1)
	checkFile(t, o.Image, content)
	content = randomBytes(50, 9<<20)
	if err := os.WriteFile(filepath.Join(s.dir, "web.img"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	o.Resume = true
	if _, err := Import(t.Context(), o); cli.ExitCode(err) != cli.ExitRefused {
		t.Errorf("got %v", err)
	}
	o.Resume = false
	meter, text := said()
	o.Meter = meter
	if r, err := Import(t.Context(), o); err != nil || r.Resumed != 0 || !strings.Contains(text.String(), "has changed") {
		t.Errorf("%+v, %v\n%s", r, err, text)
	}
	checkFile(t, o.Image, content)
	checkEmpty(t, o.Area)
}

func TestImportWrongSum(t *testing.T) {
	checkLeaks(t)
	s := newFakeServer(t)
	raw, _ := rawImage(t, s.dir, "web.img")
	for _, source := range []string{raw, s.url("web.img")} {
		o := ImportOptions{
			Source: source, Image: filepath.Join(t.TempDir(), "new.img"), Area: t.TempDir(), SHA256: make([]byte, 32),
			Server: servers.Options{SSH: s.command()},
		}
		_, err := Import(t.Context(), o)
		if !errors.Is(err, errNotAsked) || cli.ExitCode(err) != cli.ExitServer {
			t.Errorf("%s: %v", source, err)
		}
		checkEmpty(t, filepath.Dir(o.Image))
		checkEmpty(t, o.Area)
	}
}

// TestImportRefusesEarly: what is wrong with the place is known before anything
// is fetched.
func TestImportRefusesEarly(t *testing.T) {
	s := newFakeServer(t)
	_, content := rawImage(t, s.dir, "web.img")
	dir := t.TempDir()
	for _, name := range []string{"web.img", "web.qcow2"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		image, format string
		code          int
	}{
		{filepath.Join(dir, "web.img"), "", cli.ExitExists},
		{dir, "", cli.ExitExists},
		{dir, "qcow2", cli.ExitExists},
		{filepath.Join(dir, "missing", "web.img"), "", cli.ExitUsage},
		{filepath.Join(dir, "missing") + "/", "", cli.ExitUsage},
		{dir, "nonsense", cli.ExitUsage},
		{"sftp://host/x", "", cli.ExitUsage},
	} {
		o := ImportOptions{
			Source: s.url("web.img"), Image: c.image, Format: c.format, Area: t.TempDir(),
			Server: servers.Options{SSH: s.command(), Retries: -1},
		}
		meter, text := said()
		o.Meter = meter
		_, err := Import(t.Context(), o)
		if cli.ExitCode(err) != c.code || strings.Contains(text.String(), "fetching") {
			t.Errorf("%s: %v, want exit code %d\n%s", c.image, err, c.code, text)
		}
	}
	checkFile(t, filepath.Join(s.dir, "web.img"), content)
}

// TestImportOnto makes a thin overlay of what differs.
func TestImportOnto(t *testing.T) {
	checkLeaks(t)
	dir := t.TempDir()
	base, content := rawImage(t, dir, "base.img")
	changed := bytes.Clone(content)
	copy(changed[3<<20:], randomBytes(60, 1000))
	s := newFakeServer(t)
	if err := os.WriteFile(filepath.Join(s.dir, "web.img"), changed, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{filepath.Join(s.dir, "web.img"), s.url("web.img")} {
		image := filepath.Join(dir, "web.qcow2")
		r, err := Import(t.Context(), ImportOptions{
			Source: source, Image: image, Onto: base, Force: true, Area: t.TempDir(), Server: servers.Options{SSH: s.command()},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, format := contentOf(t, image); !bytes.Equal(got, changed) || format != "qcow2" || r.Data > 1<<20 {
			t.Errorf("%d bytes of %s, %+v", len(got), format, r)
		}
	}
	// BASE itself is not replaced.
	_, err := Import(t.Context(), ImportOptions{Source: filepath.Join(s.dir, "web.img"), Image: base, Onto: base, Force: true, Format: "qcow2"})
	if !errors.Is(err, layers.ErrRefused) {
		t.Errorf("onto itself: %v", err)
	}
	checkFile(t, base, content)
}

// TestRequestHasNoQuery: that of a URL is secret at times.
func TestRequestHasNoQuery(t *testing.T) {
	im := &importer{ImportOptions: ImportOptions{Source: "fake://host/disk.raw?signature=secret", Image: "x"}}
	r, err := im.request(newDownload(1, 0))
	if err != nil || strings.Contains(r.URL, "secret") || !filepath.IsAbs(r.Image) {
		t.Errorf("%+v, %v", r, err)
	}
}

// namedDownload is called as a server likes.
type namedDownload struct {
	*fakeDownload
	name string
}

func (d namedDownload) FileName() string { return d.name }

func TestFileName(t *testing.T) {
	for name, want := range map[string]string{"": "disk.raw", "web.img": "web.img", "../../etc/passwd": "passwd", "/x/y.raw": "y.raw"} {
		if got := fileName(namedDownload{newDownload(1, 0), name}); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
