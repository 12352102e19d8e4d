package area

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"flatimg/cmd/internal/cli"
)

// recordingWatcher remembers how a batch went.
type recordingWatcher struct {
	mu    sync.Mutex
	begun []string
	ended map[string]error
	begin func() // may be nil
}

func (w *recordingWatcher) Begin(o Options) Options {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun = append(w.begun, o.Image)
	if w.begin != nil {
		w.begin()
	}
	return o
}

func (w *recordingWatcher) End(image string, r *Report, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended == nil {
		w.ended = make(map[string]error)
	}
	if _, ok := w.ended[image]; ok || (r == nil) == (err == nil) {
		err = errors.Join(err, errors.New("told twice, or nothing"))
	}
	w.ended[image] = err
}

func TestExportAll(t *testing.T) {
	dir := t.TempDir()
	var images []string
	contents := map[string][]byte{}
	for _, name := range []string{"a.img", "bb.img", "ccc.img", "dddd.img"} {
		image, content := rawImage(t, dir, name)
		images = append(images, image)
		contents[image] = content
	}
	missing := filepath.Join(dir, "missing.img")
	for _, c := range []struct {
		name   string
		images []string
		jobs   int
		code   int // 0: all go well
	}{
		{"all", images, 1, 0},
		{"all at a time", images, 9, 0},
		{"no number", images, 0, 0},
		{"one is missing", slices.Insert(slices.Clone(images), 1, missing), 1, cli.ExitPartial},
		{"one is missing, two at a time", slices.Insert(slices.Clone(images), 0, missing), 2, cli.ExitPartial},
		{"all are missing", []string{missing, missing + "2"}, 2, cli.ExitSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			dest := t.TempDir()
			w := &recordingWatcher{}
			err := ExportAll(t.Context(), c.images, Options{Dest: dest, Format: "raw"}, c.jobs, w)
			if (err == nil) != (c.code == 0) || err != nil && cli.ExitCode(err) != c.code {
				t.Errorf("%v, want exit code %d", err, c.code)
			}
			if len(w.ended) != len(c.images) || len(w.begun) != len(c.images) {
				t.Errorf("begun %v, ended %v", w.begun, w.ended)
			}
			for _, image := range c.images {
				content, exists := contents[image]
				if err := w.ended[image]; exists != (err == nil) {
					t.Errorf("%s: %v", image, err)
				}
				if name := targetNameOf(image); exists {
					checkFile(t, filepath.Join(dest, name), content)
				}
			}
		})
	}
}

func targetNameOf(image string) string {
	spec, _ := targetSpec("raw", "")
	return targetName(image, "", spec)
}

// TestExportAllIsInterrupted: none begins after it, none is there in part, and
// each is told.
func TestExportAllIsInterrupted(t *testing.T) {
	checkLeaks(t)
	dir, dest := t.TempDir(), t.TempDir()
	var images []string
	for _, name := range []string{"a.img", "bb.img", "ccc.img", "dddd.img"} {
		image, _ := rawImage(t, dir, name)
		images = append(images, image)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w := &recordingWatcher{}
	w.begin = func() {
		if len(w.begun) == 2 {
			cancel()
		}
	}
	err := ExportAll(ctx, images, Options{Dest: dest + "/", Format: "raw"}, 1, w)
	if !errors.Is(err, context.Canceled) || len(w.begun) > 3 || len(w.ended) != 4 {
		t.Errorf("%v; begun %v, ended %v", err, w.begun, w.ended)
	}
	left, err := os.ReadDir(dest)
	if err != nil || len(left) != 1 || left[0].Name() != "a.raw" {
		t.Errorf("%v, %v", left, err)
	}
}

func TestCheckBatch(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		images []string
		o      Options
	}{
		{"not a folder", []string{"a.img", "b.img"}, Options{Dest: file}},
		{"a missing name", []string{"a.img", "b.img"}, Options{Dest: filepath.Join(dir, "missing")}},
		{"one object", []string{"a.img", "b.img"}, Options{Dest: "s3://bucket/key"}},
		{"one disk", []string{"a.img", "b.img"}, Options{Dest: "nbd://host/"}},
		{"one name", []string{"x/a.img", "y/a.qcow2"}, Options{Dest: dir}},
		{"--since", []string{"a.img", "b.img"}, Options{Dest: dir, Since: "1"}},
		{"a format", []string{"a.img", "b.img"}, Options{Dest: dir, Format: "nonsense"}},
	} {
		w := &recordingWatcher{}
		err := ExportAll(t.Context(), c.images, c.o, 1, w)
		if cli.ExitCode(err) != cli.ExitUsage || len(w.begun)+len(w.ended) > 0 {
			t.Errorf("%s: %v, begun %v", c.name, err, w.begun)
		}
	}
}
