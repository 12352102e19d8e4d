package integration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// soakImage is an image of the soak's folder in all its versions. Its volumes
// are a base with a name of its own for each version, so that replacing the top
// replaces the whole image at once.
type soakImage struct {
	name string
	// changing is held for writing while a file is written in place.
	changing sync.RWMutex
	mu       sync.Mutex
	// versions by the bytes that a disk begins with.
	versions map[string]*rig.Image
	count    uint64
	base     string // in the folder; empty when the image is not there
}

// soak is a run of TestSoak.
type soak struct {
	t      *testing.T
	dir    string
	images []*soakImage
	seed   uint64

	reads, opens, spoiled, changes, kills atomic.Int64
}

const soakMark = 16 // bytes at the beginning of a disk that tell its version

// TestSoak has readers compare bytes while images appear, are replaced, are
// overwritten and vanish, and while the server is killed, for as long as
// FLATIMG_SOAK says; integration/soak sets it.
func TestSoak(t *testing.T) {
	text := os.Getenv("FLATIMG_SOAK")
	if text == "" {
		t.Skip("FLATIMG_SOAK is not set: integration/soak DURATION runs it")
	}
	duration, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	rig.Need(t, "qemu-img")
	s := &soak{t: t, dir: t.TempDir(), seed: uint64(time.Now().UnixNano())}
	t.Logf("seed %d", s.seed)
	for i := range 8 {
		im := &soakImage{name: fmt.Sprintf("disk%d", i), versions: make(map[string]*rig.Image)}
		s.images = append(s.images, im)
		s.replace(im)
	}
	m := rig.NewMount(t, s.dir)
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() { s.read(ctx, m.Point, rand.New(rand.NewPCG(s.seed, uint64(i)))) })
	}
	all.Go(func() { s.change(ctx, rand.New(rand.NewPCG(s.seed, 100))) })
	all.Go(func() { s.kill(ctx, m.Point, max(duration/4, 3*time.Second)) })
	all.Wait()
	t.Logf("%d opens, %d reads, %d changes, %d readers lost their state, %d kills",
		s.opens.Load(), s.reads.Load(), s.changes.Load(), s.spoiled.Load(), s.kills.Load())
	if s.opens.Load() < 100 || s.reads.Load() < 1000 || s.changes.Load() < 5 {
		t.Error("too little has happened to mean anything")
	}
	// Whatever has happened, in the end all that is there is shown.
	for _, im := range s.images {
		if im.base == "" {
			s.replace(im)
		}
		path := filepath.Join(m.Point, im.name+".raw")
		rig.Eventually(t, soon, path+" can be read", func() bool {
			f, want, err := s.open(m.Point, im)
			if err == nil {
				f.Close()
			}
			return err == nil && want != nil
		})
	}
	rig.MustFlatimg(t, "unmount", m.Point)
}

// replace makes a new version of the image and puts it in the place of the
// present one.
func (s *soak) replace(im *soakImage) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.count++
	staging := s.t.TempDir()
	built := rig.Chain{Name: im.name, Size: 2 << 20, Seed: s.seed + im.count, Layers: []rig.Layer{
		{Writes: []rig.Write{{Off: 0, Len: 700_000}, {Kind: rig.Compressed, Off: 1 << 20, Len: 256 << 10}}},
		{Writes: []rig.Write{{Off: 300_000, Len: 300_000}}},
	}}.Build(s.t, staging)
	base := fmt.Sprintf("%s-base%d.qcow2", im.name, im.count)
	top := filepath.Join(s.dir, filepath.Base(built.Top))
	rig.RunIn(s.t, staging, "qemu-img", "rebase", "-u", "-b", base, "-F", "qcow2", built.Top)
	im.versions[string(built.Want.Bytes(0, soakMark))] = built
	if err := errors.Join(os.Rename(built.Paths[0], filepath.Join(s.dir, base)), os.Rename(built.Top, top)); err != nil {
		s.t.Error(err)
	}
	if im.base != "" {
		os.Remove(filepath.Join(s.dir, im.base))
	}
	im.base = base
}

// remove removes the image.
func (s *soak) remove(im *soakImage) {
	im.mu.Lock()
	defer im.mu.Unlock()
	os.Remove(filepath.Join(s.dir, im.name+".qcow2"))
	os.Remove(filepath.Join(s.dir, im.base))
	im.base = ""
}

// overwrite writes other bytes over the base's data, in place, and puts a new
// version there.
func (s *soak) overwrite(im *soakImage) {
	im.changing.Lock()
	defer im.changing.Unlock()
	im.mu.Lock()
	if im.base != "" {
		if f, err := os.OpenFile(filepath.Join(s.dir, im.base), os.O_WRONLY, 0); err == nil {
			f.WriteAt(make([]byte, 1<<20), 0)
			f.Close()
		}
	}
	im.mu.Unlock()
	s.replace(im)
}

// change changes the folder until ctx ends.
func (s *soak) change(ctx context.Context, r *rand.Rand) {
	for ctx.Err() == nil {
		im := s.images[r.IntN(len(s.images))]
		switch r.IntN(4) {
		case 0:
			s.remove(im)
		case 1:
			s.overwrite(im)
		default:
			s.replace(im)
		}
		s.changes.Add(1)
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
	}
}

// open opens the view of the image and finds out which version it is; nil for
// one that is being overwritten.
func (s *soak) open(point string, im *soakImage) (*os.File, *rig.Image, error) {
	im.changing.RLock()
	defer im.changing.RUnlock()
	f, err := os.Open(filepath.Join(point, im.name+".raw"))
	if err != nil {
		return nil, nil, err
	}
	mark := make([]byte, soakMark)
	if _, err := f.ReadAt(mark, 0); err != nil {
		f.Close()
		return nil, nil, err
	}
	im.mu.Lock()
	defer im.mu.Unlock()
	version := im.versions[string(mark)]
	if version == nil {
		f.Close()
		return nil, nil, fmt.Errorf("%s begins with bytes that no version has: % x", f.Name(), mark)
	}
	return f, version, nil
}

// expected are errors that readers must live with: the view is gone, its
// server was killed, its image was overwritten, or it is replaced again and
// again while it is opened.
func expected(err error) bool {
	for _, errno := range []error{syscall.ENOENT, syscall.ENOTCONN, syscall.ECONNABORTED, syscall.EIO, syscall.ESTALE} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// read reads until ctx ends.
func (s *soak) read(ctx context.Context, point string, r *rand.Rand) {
	for ctx.Err() == nil {
		im := s.images[r.IntN(len(s.images))]
		f, version, err := s.open(point, im)
		if err != nil {
			if !expected(err) {
				s.t.Error(err)
			}
			time.Sleep(5 * time.Millisecond) // for a mount that is on its way
			continue
		}
		s.opens.Add(1)
		for range 1 + r.IntN(300) {
			if err = checkRange(f, version, r); err != nil || ctx.Err() != nil {
				break
			}
			s.reads.Add(1)
		}
		if err != nil && !expected(err) {
			s.t.Error(err)
		} else if err != nil {
			s.spoiled.Add(1)
		}
		f.Close()
	}
}

// kill kills the server again and again and mounts anew.
func (s *soak) kill(ctx context.Context, point string, every time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		for _, pid := range rig.Servers(s.t, point) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		// Busy as long as readers have not seen the errors.
		rig.Eventually(s.t, soon, "the stale mount is cleared", func() bool {
			return rig.Flatimg(s.t, "unmount", point).Code == 0
		})
		rig.MustFlatimg(s.t, "mount", s.dir, point)
		s.kills.Add(1)
	}
}
