package layers_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// read is [io.ReaderAt]'s method; a failure takes its place and may call it.
type (
	read    = func(p []byte, off int64) (int, error)
	failure = func(read read, p []byte, off int64) (int, error)
)

// faults makes one operation on the files of an image fail. Safe for concurrent
// use.
type faults struct {
	// at is the number of the operation that fails, from 1.
	at int64
	// fail says how, for a read; other operations fail with EIO.
	fail failure
	// readsOnly counts reads only.
	readsOnly bool

	count, open atomic.Int64
	mu          sync.Mutex
	hit         string // the file of the operation that failed
}

// wrap implements [layers.Options.Wrap].
func (f *faults) wrap(file *os.File) volume.Source {
	f.open.Add(1)
	return &faultySource{file, f}
}

// next counts an operation on file and says whether it must fail.
func (f *faults) next(file string, isRead bool) bool {
	if f.readsOnly && !isRead || f.count.Add(1) != f.at {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hit = file
	return true
}

type faultySource struct {
	*os.File
	*faults
}

func (s *faultySource) ReadAt(p []byte, off int64) (int, error) {
	if s.next(s.Name(), true) {
		return s.fail(s.File.ReadAt, p, off)
	}
	return s.File.ReadAt(p, off)
}

func (s *faultySource) Stat() (os.FileInfo, error) {
	if s.next(s.Name(), false) {
		return nil, &os.PathError{Op: "stat", Path: s.Name(), Err: syscall.EIO}
	}
	return s.File.Stat()
}

func (s *faultySource) Seek(off int64, whence int) (int64, error) {
	if s.next(s.Name(), false) {
		return 0, &os.PathError{Op: "seek", Path: s.Name(), Err: syscall.EIO}
	}
	return s.File.Seek(off, whence)
}

func (s *faultySource) Close() error {
	s.open.Add(-1)
	return s.File.Close()
}

// everything is a chain that needs all kinds of operations: a raw base with
// holes, compressed clusters, a data file, a snapshot table, preallocation.
func everything(t *testing.T) *rig.Image {
	built := rig.Chain{Size: 4 << 20, Layers: []rig.Layer{
		{Format: "raw", Writes: []rig.Write{{Off: 0, Len: 65536}, {Off: 1 << 20, Len: 65536}}},
		{Options: "data_file=data.bin", Writes: []rig.Write{{Off: 1<<20 + 65536, Len: 65536}}},
		{Writes: []rig.Write{{Kind: rig.Compressed, Off: 2 << 20, Len: 131072}, {Off: 3 << 20, Len: 100_000}}},
	}}.Build(t, t.TempDir())
	rig.Run(t, "qemu-img", "snapshot", "-c", "one", built.Top)
	return built
}

// readTwice opens the image and reads it, and once more if that fails.
func readTwice(path string, f *faults) ([]byte, error) {
	im, err := layers.Open(path, layers.Options{Wrap: f.wrap})
	if err != nil {
		return nil, err
	}
	defer im.Close()
	p := make([]byte, im.Size())
	if _, err := im.ReadAt(p, 0); err != nil {
		// Nothing of a fault is kept: the next read is right.
		clear(p)
		if _, again := im.ReadAt(p, 0); again != nil {
			return nil, fmt.Errorf("after %w, the second read: %v", err, again)
		}
		return p, err
	}
	return p, nil
}

// eachOperation calls check for a fault at each operation of opening and reading
// the image, until there are no more.
func eachOperation(t *testing.T, path string, fail failure, readsOnly bool, least int64, check func(f *faults, got []byte, err error)) {
	t.Helper()
	for at := int64(1); ; at++ {
		f := &faults{at: at, fail: fail, readsOnly: readsOnly}
		got, err := readTwice(path, f)
		if n := f.open.Load(); n != 0 {
			t.Errorf("operation %d on %s: %d files are left open", at, f.hit, n)
		}
		if f.hit == "" {
			if at <= least {
				t.Errorf("only %d operations: the test does not see them all", at-1)
			}
			return
		}
		check(f, got, err)
	}
}

// TestFaults lets each operation of opening and reading fail once.
func TestFaults(t *testing.T) {
	built := everything(t)
	want := string(built.Want.Bytes(0, built.Size))
	for name, test := range map[string]struct {
		fail failure
		is   error
	}{
		"EIO":       {func(read, []byte, int64) (int, error) { return 0, syscall.EIO }, syscall.EIO},
		"half EIO":  {func(r read, p []byte, off int64) (int, error) { n, _ := r(p[:len(p)/2], off); return n, syscall.EIO }, syscall.EIO},
		"ESTALE":    {func(read, []byte, int64) (int, error) { return 0, syscall.ESTALE }, nil},
		"ended":     {func(read, []byte, int64) (int, error) { return 0, io.EOF }, nil},
		"stuck":     {func(read, []byte, int64) (int, error) { return 0, nil }, nil},
		"ended mid": {func(r read, p []byte, off int64) (int, error) { n, _ := r(p[:len(p)/2], off); return n, io.EOF }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			failed := 0
			eachOperation(t, built.Top, test.fail, false, 20, func(f *faults, got []byte, err error) {
				if err != nil {
					failed++
				}
				switch {
				case err == nil:
					// A region of the map is resolved again, only as far as is
					// needed, before it is an error.
					if string(got) != want {
						t.Errorf("operation %d on %s: no error, but other bytes", f.at, f.hit)
					}
				case !strings.Contains(err.Error(), f.hit):
					t.Errorf("operation %d: %v does not name %s", f.at, err, f.hit)
				case !errors.Is(err, layers.ErrSource), test.is != nil && !errors.Is(err, test.is):
					t.Errorf("operation %d: %v is not the right error", f.at, err)
				case strings.Contains(err.Error(), "the second read"):
					t.Errorf("operation %d: %v", f.at, err)
				case got != nil && string(got) != want:
					t.Errorf("operation %d on %s: other bytes after the fault", f.at, f.hit)
				}
			})
			if failed < 15 {
				t.Errorf("only %d faults are errors", failed)
			}
		})
	}
}

// TestShortReads has reads that are interrupted or bring less than was asked
// for, which is no fault.
func TestShortReads(t *testing.T) {
	built := everything(t)
	want := string(built.Want.Bytes(0, built.Size))
	for name, fail := range map[string]failure{
		"EINTR":      func(read, []byte, int64) (int, error) { return 0, syscall.EINTR },
		"half EINTR": func(r read, p []byte, off int64) (int, error) { n, _ := r(p[:len(p)/2], off); return n, syscall.EINTR },
		"one byte":   func(r read, p []byte, off int64) (int, error) { return r(p[:1], off) },
	} {
		t.Run(name, func(t *testing.T) {
			eachOperation(t, built.Top, fail, true, 10, func(f *faults, got []byte, err error) {
				if err != nil || string(got) != want {
					t.Errorf("read %d on %s: %v", f.at, f.hit, err)
				}
			})
		})
	}
}

// TestFaultSaysWhere: an error has all that is needed to find the place.
func TestFaultSaysWhere(t *testing.T) {
	built := rig.Chain{Size: 1 << 20, Layers: []rig.Layer{
		{Writes: []rig.Write{{Off: 65536, Len: 65536}}}, {},
	}}.Build(t, t.TempDir())
	f := &faults{}
	im := open(t, built.Top, layers.Options{Wrap: f.wrap})
	p := make([]byte, 4096)
	if _, err := im.ReadAt(p, 65536+4096); err != nil {
		t.Fatal(err)
	}
	var host int64
	for e, err := range im.Extents(65536+4096, 4096) {
		if err != nil {
			t.Fatal(err)
		}
		host = e.Host
	}
	f.fail = func(read, []byte, int64) (int, error) { return 0, syscall.EIO }
	f.at = f.count.Load() + 1
	_, err := im.ReadAt(p, 65536+4096)
	wantError(t, err, syscall.EIO, "guest offset 0x11000: ", built.Paths[0], fmt.Sprintf("at offset %#x", host))
}

// TestSlowDisk: while reads of one image do not come back, others go on though
// they share a cache.
func TestSlowDisk(t *testing.T) {
	slow, quick := twoLayers(t), twoLayers(t)
	cache := layers.NewCache(0, 0)
	gate, stuck := make(chan struct{}), make(chan struct{}, 100)
	f := &faults{}
	im := open(t, slow.Top, layers.Options{Cache: cache, Wrap: f.wrap})
	f.fail = func(read read, p []byte, off int64) (int, error) {
		stuck <- struct{}{}
		<-gate
		return read(p, off)
	}
	f.at = f.count.Load() + 1
	done := make(chan error, 1)
	go func() {
		p := make([]byte, slow.Size)
		_, err := im.ReadAt(p, 0)
		if err == nil && string(p) != string(slow.Want.Bytes(0, slow.Size)) {
			err = errors.New("other bytes")
		}
		done <- err
	}()
	<-stuck
	others := make(chan error, 1)
	go func() {
		other, err := layers.Open(quick.Top, layers.Options{Cache: cache})
		if err != nil {
			others <- err
			return
		}
		defer other.Close()
		_, err = other.ReadAt(make([]byte, quick.Size), 0)
		others <- err
	}()
	select {
	case err := <-others:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("another image waits for the slow one")
	}
	close(gate)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestShrunkFile: what a file has lost is not taken for a hole.
func TestShrunkFile(t *testing.T) {
	path := t.TempDir() + "/disk.raw"
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	im := open(t, path, layers.Options{})
	if err := os.Truncate(path, 512<<10); err != nil {
		t.Fatal(err)
	}
	_, err := im.ReadAt(make([]byte, 4096), 768<<10)
	wantError(t, err, volume.ErrShrunk, path)
	_, err = im.AppendSegments(nil, 0, im.Size())
	wantError(t, err, layers.ErrSource, path)
}
