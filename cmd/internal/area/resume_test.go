package area

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// rawImage makes a raw image with a hole and returns its path and content.
func rawImage(t *testing.T, dir, name string) (path string, content []byte) {
	t.Helper()
	content = make([]byte, 8<<20)
	copy(content, randomBytes(uint64(len(name)), 5<<20))
	copy(content[7<<20:], randomBytes(7, 1<<20))
	path = filepath.Join(dir, name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(8<<20), writeAt(f, content[:5<<20], 0), writeAt(f, content[7<<20:], 7<<20), f.Sync()); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func writeAt(f *os.File, p []byte, off int64) error {
	_, err := f.WriteAt(p, off)
	return err
}

// sendOptions are those of an export of image to a server, from an area of its
// own.
func sendOptions(t *testing.T, s *fakeServer, image, name string) Options {
	t.Helper()
	return Options{
		Image: image, Dest: s.url(name), Area: t.TempDir(),
		Server: servers.Options{SSH: s.command(), Retries: -1, Connections: 1},
	}
}

// said returns a meter and what it says.
func said() (*progress.Meter, *bytes.Buffer) {
	var b bytes.Buffer
	return progress.NewEvents(&b).Meter("job"), &b
}

func checkFile(t *testing.T, path string, want []byte) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes differ from what was exported, %d bytes", path, len(got), len(want))
	}
}

// TestExportGoesOn cuts the line at many points and goes on: what was sent is not
// sent again, and the file is whole.
func TestExportGoesOn(t *testing.T) {
	checkLeaks(t)
	image, content := rawImage(t, t.TempDir(), "web.img")
	for _, stream := range []bool{false, true} {
		s := newFakeServer(t)
		o := sendOptions(t, s, image, "web.raw")
		o.Stream = stream
		for _, cut := range []int64{300, 5000, 300_000, 4<<20 + 300_000, 1 << 20} {
			s.breakAfter(t, cut)
			r, err := Export(t.Context(), o)
			if err == nil || cli.ExitCode(err) != cli.ExitServer {
				t.Fatalf("cut after %d: %v, %v", cut, r, err)
			}
			if _, err := os.Stat(filepath.Join(s.dir, "web.raw")); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("cut after %d: %v", cut, err)
			}
		}
		jobs, err := Jobs(o.Area)
		if err != nil || len(jobs) != 1 || jobs[0].Data != 6<<20 || jobs[0].Done == 0 || jobs[0].Done > 6<<20 || jobs[0].Running {
			t.Fatalf("jobs %+v, %v", jobs, err)
		}
		s.breakAfter(t, -1)
		o.Resume = true
		r, err := Export(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Resumed == 0 || r.Sent+r.Resumed != 6<<20 || !strings.HasSuffix(r.VerifiedBy, "on the server") || r.SHA256 == nil {
			t.Errorf("stream %v: %+v", stream, r)
		}
		checkFile(t, filepath.Join(s.dir, "web.raw"), content)
		if names := s.names(t); len(names) != 1 {
			t.Errorf("on the server: %v", names)
		}
		checkEmpty(t, o.Area)
	}
}

// TestExportAfterKill: of a killed run is left what its record says.
func TestExportAfterKill(t *testing.T) {
	image, content := rawImage(t, t.TempDir(), "web.img")
	s := newFakeServer(t)
	o := sendOptions(t, s, image, "web.raw")
	s.breakAfter(t, 4<<20+300_000)
	if _, err := Export(t.Context(), o); err == nil {
		t.Fatal("not cut")
	}
	jobs, err := Jobs(o.Area)
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%+v, %v", jobs, err)
	}
	// A kill between two writings of the record: its hash is ahead of its state.
	j, err := openJob(filepath.Join(o.Area, jobPrefix+jobs[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	if h := j.file(mainFile).Hash; h == nil || h.Offset == 0 {
		t.Logf("no hash was kept: %+v", h)
	}
	j.update(mainFile, true, func(f *fileRecord) { f.Hash = nil })
	j.close()
	s.breakAfter(t, -1)
	r, err := Export(t.Context(), o)
	if err != nil || r.Resumed == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	checkFile(t, filepath.Join(s.dir, "web.raw"), content)
}

// TestExportOfAnotherState: what was sent is never mixed with what the image is
// now, even when a write has kept the size and the time.
func TestExportOfAnotherState(t *testing.T) {
	checkLeaks(t)
	image, content := rawImage(t, t.TempDir(), "web.img")
	s := newFakeServer(t)
	o := sendOptions(t, s, image, "web.raw")
	s.breakAfter(t, 4<<20+300_000)
	if _, err := Export(t.Context(), o); err == nil {
		t.Fatal("not cut")
	}
	s.breakAfter(t, -1)
	rewrite(t, image, content)
	o.Resume = true
	if _, err := Export(t.Context(), o); err == nil || cli.ExitCode(err) != cli.ExitRefused || !strings.Contains(err.Error(), "changed") {
		t.Fatalf("--resume: %v", err)
	}
	o.Resume = false
	meter, text := said()
	o.Meter = meter
	r, err := Export(t.Context(), o)
	if err != nil || r.Resumed != 0 || !strings.Contains(text.String(), "begins anew") {
		t.Errorf("%+v, %v\n%s", r, err, text)
	}
	checkFile(t, filepath.Join(s.dir, "web.raw"), content)
	if names := s.names(t); len(names) != 1 {
		t.Errorf("on the server: %v", names)
	}
	checkEmpty(t, o.Area)
}

// rewrite changes a byte of the image and of its content, and sets the times
// that the file had.
func rewrite(t *testing.T, image string, content []byte) {
	t.Helper()
	fi, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	content[1000]++
	f, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(writeAt(f, content[1000:1001], 1000), os.Chtimes(image, fi.ModTime(), fi.ModTime())); err != nil {
		t.Fatal(err)
	}
}

func TestStateOf(t *testing.T) {
	image, content := rawImage(t, t.TempDir(), "web.img")
	state := func() string {
		im, err := layers.Open(image, layers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer im.Close()
		s, err := stateOf(im)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := state()
	if again := state(); again != before {
		t.Error("the same image has another state")
	}
	// The time of a change is that of the kernel's last tick.
	for begin := time.Now(); state() == before; {
		rewrite(t, image, content)
		if time.Since(begin) > 30*time.Second {
			t.Fatal("a write that kept size and time has changed nothing")
		}
	}
}

// TestExportExists: an unfinished job whose target is there now stays: only it
// knows of the part on the server.
func TestExportExists(t *testing.T) {
	checkLeaks(t)
	image, content := rawImage(t, t.TempDir(), "web.img")
	s := newFakeServer(t)
	o := sendOptions(t, s, image, "web.raw")
	s.breakAfter(t, 4<<20+300_000)
	if _, err := Export(t.Context(), o); err == nil {
		t.Fatal("not cut")
	}
	s.breakAfter(t, -1)
	other := filepath.Join(s.dir, "web.raw")
	if err := os.WriteFile(other, []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Export(t.Context(), o); cli.ExitCode(err) != cli.ExitExists {
		t.Fatalf("got %v", err)
	}
	checkFile(t, other, []byte("other"))
	jobs, err := Jobs(o.Area)
	if err != nil || len(jobs) != 1 || len(s.names(t)) != 2 {
		t.Fatalf("jobs %+v, %v; on the server %v", jobs, err, s.names(t))
	}
	forced := o
	forced.Server.Force = true
	if r, err := Export(t.Context(), forced); err != nil || r.Resumed == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	checkFile(t, other, content)
	checkEmpty(t, o.Area)
	if names := s.names(t); len(names) != 1 {
		t.Errorf("on the server: %v", names)
	}
}

// TestRemoveJobOnServer removes what was sent: also where the name in the URL is
// escaped, and where it comes from the image.
func TestRemoveJobOnServer(t *testing.T) {
	for _, name := range []string{"web.raw", "100%25%20%3Fof%23it.raw", ""} {
		image, _ := rawImage(t, t.TempDir(), "100% ?of#it.img")
		s := newFakeServer(t)
		o := sendOptions(t, s, image, name)
		o.Format = "raw"
		s.breakAfter(t, 2<<20)
		if _, err := Export(t.Context(), o); err == nil {
			t.Fatal("not cut")
		}
		if names := s.names(t); len(names) != 1 {
			t.Fatalf("on the server: %v", names)
		}
		jobs, err := Jobs(o.Area)
		if err != nil || len(jobs) != 1 {
			t.Fatalf("%+v, %v", jobs, err)
		}
		// Not while the server is away.
		s.breakAfter(t, 0)
		err = RemoveJob(t.Context(), o.Area, jobs[0].ID)
		if cli.ExitCode(err) != cli.ExitServer || !strings.Contains(cli.Hint(err), "rm -r "+o.Area) {
			t.Errorf("%v, hint %q", err, cli.Hint(err))
		}
		s.breakAfter(t, -1)
		if err := RemoveJob(t.Context(), o.Area, jobs[0].ID); err != nil {
			t.Error(err)
		}
		checkEmpty(t, s.dir)
		checkEmpty(t, o.Area)
	}
}

func TestResumeWithoutJob(t *testing.T) {
	image, _ := rawImage(t, t.TempDir(), "web.img")
	s := newFakeServer(t)
	o := sendOptions(t, s, image, "web.raw")
	o.Resume = true
	if _, err := Export(t.Context(), o); cli.ExitCode(err) != cli.ExitRefused {
		t.Errorf("got %v", err)
	}
	o.Dest = filepath.Join(t.TempDir(), "web.raw")
	if _, err := Export(t.Context(), o); cli.ExitCode(err) != cli.ExitUsage {
		t.Errorf("local: %v", err)
	}
	checkEmpty(t, o.Area)
}

// awaitRecord waits until the job in an area has a record of a kind.
func awaitRecord(t *testing.T, area string, is func(*record) bool) {
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
		dirs, _ := filepath.Glob(filepath.Join(area, jobPrefix+"*"))
		for _, dir := range dirs {
			if r, err := readRecord(dir); err == nil && is(r) {
				return
			}
		}
	}
	t.Error("no such record")
}

// TestExportInterrupted goes on after Ctrl-C, too.
func TestExportInterrupted(t *testing.T) {
	checkLeaks(t)
	image, content := rawImage(t, t.TempDir(), "web.img")
	s := newFakeServer(t)
	o := sendOptions(t, s, image, "web.raw")
	o.BandwidthLimit = 64 << 10 // the first MiB is free, the others would take long
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		awaitRecord(t, o.Area, func(r *record) bool { return r.Files[mainFile] != nil && r.Files[mainFile].State != nil })
		cancel()
	}()
	meter, text := said()
	o.Meter = meter
	if _, err := Export(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	jobs, err := Jobs(o.Area)
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%+v, %v", jobs, err)
	}
	if want := fmt.Sprintf("flatimg jobs --area %s --remove %s", o.Area, jobs[0].ID); !strings.Contains(text.String(), want) {
		t.Errorf("no word of %q in\n%s", want, text)
	}
	o.BandwidthLimit, o.Resume = 0, true
	if _, err := Export(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	checkFile(t, filepath.Join(s.dir, "web.raw"), content)
	checkEmpty(t, o.Area)
}

// TestExportKeepsArea: --keep-area keeps the file, and no job.
func TestExportKeepsArea(t *testing.T) {
	image, content := rawImage(t, t.TempDir(), "web.img")
	s := newFakeServer(t)
	o := sendOptions(t, s, image, "web.raw")
	o.Keep = true
	r, err := Export(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	checkFile(t, r.Kept, content)
	if jobs, err := Jobs(o.Area); err != nil || len(jobs) != 0 {
		t.Errorf("%+v, %v", jobs, err)
	}
}

// TestExportToItself: the source is not replaced, however it is written.
func TestExportToItself(t *testing.T) {
	dir := t.TempDir()
	image, content := rawImage(t, dir, "web.raw")
	for _, dest := range []string{image, "file://" + image, dir, "file://" + dir + "/", filepath.Join(dir, ".", "web.raw")} {
		_, err := Export(t.Context(), Options{Image: image, Dest: dest, Server: servers.Options{Force: true}})
		if !errors.Is(err, layers.ErrRefused) {
			t.Errorf("%s: %v", dest, err)
		}
	}
	checkFile(t, image, content)
}

// TestExportOfChanging: the error is the image's, and nothing is kept.
func TestExportOfChanging(t *testing.T) {
	image, content := rawImage(t, t.TempDir(), "web.img")
	s := newFakeServer(t)
	o := sendOptions(t, s, image, "web.raw")
	o.Stream = true
	var change sync.Once
	o.Open.Wrap = func(f *os.File) volume.Source {
		return changingSource{f, func() {
			change.Do(func() {
				f, err := os.OpenFile(image, os.O_WRONLY, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				if err := writeAt(f, content[:10], 0); err != nil {
					t.Error(err)
				}
			})
		}}
	}
	_, err := Export(t.Context(), o)
	if cli.ExitCode(err) != cli.ExitSource || !strings.HasPrefix(err.Error(), image) {
		t.Errorf("%v, exit code %d", err, cli.ExitCode(err))
	}
	checkEmpty(t, s.dir)
	checkEmpty(t, o.Area)
}

// changingSource changes while it is read, when some of it has been.
type changingSource struct {
	*os.File
	change func()
}

func (s changingSource) ReadAt(p []byte, off int64) (int, error) {
	if off >= 2<<20 {
		s.change()
	}
	return s.File.ReadAt(p, off)
}
