package fs

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"flatimg/layers"
	"flatimg/layers/volume"
)

// sourceOf is a source whose reads of data a test can hold up or make fail.
type sourceOf struct {
	*os.File
	read func(file string) error
}

func (s sourceOf) ReadAt(p []byte, off int64) (int, error) {
	if err := s.read(s.Name()); err != nil {
		return 0, err
	}
	return s.File.ReadAt(p, off)
}

// testCatalog returns a catalog of raw images with these names, each of 1 MiB
// and filled with its name. All reads of them call read first.
func testCatalog(t *testing.T, read func(file string) error, log *slog.Logger, names ...string) (c *catalog, dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range names {
		text := strings.Repeat(name, 1<<20/len(name)+1)[:1<<20]
		path := filepath.Join(dir, name+".img")
		// Not just now: the clock of a file system may have the same time still
		// when a test changes the file.
		before := time.Now().Add(-time.Hour)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, before, before)); err != nil {
			t.Fatal(err)
		}
	}
	o := Options{Sources: []string{dir}, Log: log, Layers: layers.Options{
		Wrap: func(f *os.File) volume.Source { return sourceOf{f, read} },
	}}
	if err := o.validate(); err != nil {
		t.Fatal(err)
	}
	c = newCatalog(o)
	c.zeroFile = newZeroFile()
	t.Cleanup(c.close)
	c.refresh()
	return c, dir
}

// readView opens a view as the kernel does and reads 4 KiB of it.
func readView(t *testing.T, c *catalog, name string) (string, error) {
	t.Helper()
	v := c.lookup(name)
	if v == nil {
		return "", os.ErrNotExist
	}
	handle, _, errno := v.Open(t.Context(), syscall.O_RDONLY)
	if errno != 0 {
		return "", errno
	}
	h := handle.(*viewHandle)
	defer h.Release(t.Context())
	result, errno := h.Read(t.Context(), make([]byte, 4096), 0)
	if errno != 0 {
		return "", errno
	}
	defer result.Done()
	b, _ := result.Bytes(make([]byte, 4096))
	return string(b), nil
}

// TestSlowImage: while one image's disk does not answer, other views are opened
// and read, the sources are scanned, and the status is told.
func TestSlowImage(t *testing.T) {
	var held atomic.Bool
	gate, stuck := make(chan struct{}), make(chan struct{}, 10)
	c, _ := testCatalog(t, func(file string) error {
		if held.Load() && strings.Contains(file, "slow") {
			stuck <- struct{}{}
			<-gate
		}
		return nil
	}, nil, "slow", "quick")
	held.Store(true)
	done := make(chan error, 1)
	go func() {
		_, err := readView(t, c, "slow.raw")
		done <- err
	}()
	<-stuck
	others := make(chan error, 1)
	go func() {
		text, err := readView(t, c, "quick.raw")
		if err == nil && !strings.HasPrefix(text, "quickquick") {
			err = errors.New("other bytes")
		}
		c.refresh()
		c.errorText()
		c.status("")
		others <- err
	}()
	select {
	case err := <-others:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("others wait for the slow image")
	}
	held.Store(false)
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestFaultIsTold: a fault is counted, told in the status and the errors, and
// has one line in the log with image, layer, guest and host offset.
func TestFaultIsTold(t *testing.T) {
	var broken atomic.Bool
	var log strings.Builder
	c, dir := testCatalog(t, func(string) error {
		if broken.Load() {
			return syscall.EIO
		}
		return nil
	}, slog.New(slog.NewTextHandler(&log, nil)), "disk")
	image := filepath.Join(dir, "disk.img")
	status := func() viewStatus {
		return c.status("").Views[0]
	}
	if _, err := readView(t, c, "disk.raw"); err != nil {
		t.Fatal(err)
	}
	if s := status(); s.Reads != 1 || s.BytesRead != 4096 || s.Errors != 0 || s.Map.Misses != 1 || s.Map.Entries != 1 || s.Map.Bytes == 0 || !s.Open {
		t.Errorf("status after a read: %+v", s)
	}
	broken.Store(true)
	v := c.lookup("disk.raw")
	target, im, err := v.acquire()
	if err != nil {
		t.Fatal(err)
	}
	h := &viewHandle{view: v, target: target, size: target.Size(), watch: im.watch}
	defer h.Release(t.Context())
	for range 3 {
		if _, errno := h.Read(t.Context(), make([]byte, 4096), 65536); errno != syscall.EIO {
			t.Errorf("%v, want EIO", errno)
		}
	}
	if s := status(); s.Errors != 3 || !strings.Contains(s.LastError, image) || s.Reads != 1 {
		t.Errorf("status after faults: %+v", s)
	}
	if text := c.errorText(); !strings.HasPrefix(text, image+": ") {
		t.Errorf("errors are\n%s", text)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 1 {
		t.Errorf("%d lines, want one:\n%s", len(lines), log.String())
	}
	for _, part := range []string{"image=" + image, "guest offset 0x10000", image + ": read 4096 bytes at offset 0x10000"} {
		if !strings.Contains(lines[0], part) {
			t.Errorf("no %q in %s", part, lines[0])
		}
	}
}

// TestWatch: what was read before a change is good, what was read after it is
// not, whichever file it comes from.
func TestWatch(t *testing.T) {
	c, dir := testCatalog(t, func(string) error { return nil }, nil, "disk")
	v := c.lookup("disk.raw")
	target, im, err := v.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer v.image.release()
	segments, err := target.AppendSegments(nil, 0, 4096)
	if err != nil {
		t.Fatal(err)
	}
	if err := im.watch.verify(segments); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "disk.img"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 1<<19); err != nil {
		t.Fatal(err)
	}
	// At once: the file is one that the bytes come from.
	if err := v.image.verify(im.watch.verify(segments)); !errors.Is(err, errChanged) || toErrno(err) != syscall.EIO {
		t.Errorf("after a write: %v", err)
	}
	if _, _, err := v.acquire(); !errors.Is(err, errChanged) {
		t.Errorf("acquired after a write: %v", err)
	}
	if text := c.errorText(); !strings.Contains(text, "has changed") {
		t.Errorf("errors are\n%s", text)
	}
	if old := c.refresh(); len(old.contents) != 1 || old.contents[0] != v || len(old.names) != 1 {
		t.Errorf("the kernel is told of %+v", old)
	}
	if text, err := readView(t, c, "disk.raw"); err != nil || !strings.HasPrefix(text, "diskdisk") {
		t.Errorf("the new state: %v", err)
	}
}
