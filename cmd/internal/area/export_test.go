package area

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
)

// TestExportOfTwoFiles goes on with a file and its companion.
func TestExportOfTwoFiles(t *testing.T) {
	checkLeaks(t)
	image, content := rawImage(t, t.TempDir(), "web.img")
	for _, cut := range []int64{2000, 3 << 20, 6<<20 + 400_000} {
		for _, name := range []string{"web.vmdk", ""} {
			s := newFakeServer(t)
			o := sendOptions(t, s, image, name)
			o.Format = "vmdk,subformat=monolithicFlat"
			s.breakAfter(t, cut)
			_, first := Export(t.Context(), o)
			if names := s.names(t); first != nil && (slices.Contains(names, "web.vmdk") || slices.Contains(names, "web-flat.vmdk")) {
				t.Errorf("cut after %d: %v; on the server %v", cut, first, names)
			}
			s.breakAfter(t, -1)
			if first != nil {
				if _, err := Export(t.Context(), o); err != nil {
					t.Fatalf("cut after %d: %v", cut, err)
				}
			}
			if names := s.names(t); !slices.Equal(names, []string{"web-flat.vmdk", "web.vmdk"}) {
				t.Errorf("cut after %d: on the server %v", cut, names)
			}
			checkFile(t, filepath.Join(s.dir, "web-flat.vmdk"), content)
			checkEmpty(t, o.Area)
		}
	}
}

// TestExportsMeet: of several to one name one wins, and nothing is left of the
// others.
func TestExportsMeet(t *testing.T) {
	checkLeaks(t)
	image, content := rawImage(t, t.TempDir(), "web.img")
	s := newFakeServer(t)
	o := sendOptions(t, s, image, "web.raw")
	results := make(chan error)
	for range 3 {
		go func() {
			_, err := Export(t.Context(), o)
			results <- err
		}()
	}
	won := 0
	for range 3 {
		if err := <-results; err == nil {
			won++
		} else if cli.ExitCode(err) != cli.ExitExists {
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d have won", won)
	}
	checkFile(t, filepath.Join(s.dir, "web.raw"), content)
	if names := s.names(t); len(names) != 1 {
		t.Errorf("on the server: %v", names)
	}
	checkEmpty(t, o.Area)
}

// TestDeltaGoesAndComes exports what a layer has changed to a server, and puts it
// onto the base at another place.
func TestDeltaGoesAndComes(t *testing.T) {
	checkLeaks(t)
	dir := t.TempDir()
	base, content := rawImage(t, dir, "base.img")
	changed := bytes.Clone(content)
	copy(changed[1<<20:], randomBytes(61, 70_000))
	if err := os.WriteFile(filepath.Join(dir, "changed.img"), changed, 0o600); err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(dir, "top.qcow2")
	if _, err := Import(t.Context(), ImportOptions{Source: filepath.Join(dir, "changed.img"), Image: top, Onto: base}); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"", "qcow2,compression=zlib"} {
		s := newFakeServer(t)
		o := sendOptions(t, s, top, "delta.qcow2")
		o.Since, o.Format = "0", format
		r, err := Export(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		if r.Size > 1<<20 {
			t.Errorf("%s: %+v", format, r)
		}
		other := t.TempDir()
		if err := os.WriteFile(filepath.Join(other, "base.img"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		image := filepath.Join(other, "web.qcow2")
		if _, err := Import(t.Context(), ImportOptions{
			Source: s.url("delta.qcow2"), Image: image, Onto: filepath.Join(other, "base.img"), Area: t.TempDir(), Server: o.Server,
		}); err != nil {
			t.Fatal(err)
		}
		if got, _ := contentOf(t, image); !bytes.Equal(got, changed) {
			t.Errorf("%s: the image differs", format)
		}
	}
}

// TestExportRefuses tells the exit code of what can't go well.
func TestExportRefuses(t *testing.T) {
	image, _ := rawImage(t, t.TempDir(), "web.img")
	dir := t.TempDir()
	s := newFakeServer(t)
	for _, c := range []struct {
		name string
		o    Options
		code int
	}{
		{"--stream with --keep-area", Options{Dest: s.url("x"), Stream: true, Keep: true}, cli.ExitUsage},
		{"--stream, compressed", Options{Dest: s.url("x"), Stream: true, Format: "vmdk,subformat=streamOptimized"}, cli.ExitUsage},
		{"no area", Options{Dest: s.url("x"), Area: filepath.Join(dir, "missing")}, cli.ExitUsage},
		{"an area that is a file", Options{Dest: s.url("x"), Area: image}, cli.ExitUsage},
		{"a missing image", Options{Image: filepath.Join(dir, "missing"), Dest: s.url("x")}, cli.ExitSource},
		{"a missing layer", Options{Dest: s.url("x"), Since: "7"}, cli.ExitUsage},
		{"a missing folder", Options{Dest: s.url("missing/x")}, cli.ExitServer},
		{"a missing local folder", Options{Dest: filepath.Join(dir, "missing", "x")}, cli.ExitUsage},
		{"an unknown format", Options{Dest: filepath.Join(dir, "x"), Format: "nonsense"}, cli.ExitUsage},
		{"a smaller disk", Options{Dest: filepath.Join(dir, "x"), VirtualSize: 512}, cli.ExitUsage},
		{"an unknown server", Options{Dest: "nothing://host/x"}, cli.ExitUsage},
	} {
		if c.o.Image == "" {
			c.o.Image = image
		}
		c.o.Server = servers.Options{SSH: s.command(), Retries: -1}
		if c.o.Area == "" {
			c.o.Area = t.TempDir()
			defer checkEmpty(t, c.o.Area)
		}
		_, err := Export(t.Context(), c.o)
		if err == nil || cli.ExitCode(err) != c.code {
			t.Errorf("%s: %v, exit code %d, want %d", c.name, err, cli.ExitCode(err), c.code)
		}
	}
	checkEmpty(t, dir)
	checkEmpty(t, s.dir)
}
