package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// footprint is what a server takes.
type footprint struct {
	descriptors, goroutines int
	rss                     int64 // bytes
}

func footprintOf(t *testing.T, m *rig.Mounted) footprint {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(m.PID))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	statm, err := os.ReadFile(filepath.Join(proc, "statm"))
	if err != nil {
		t.Fatal(err)
	}
	// proc(5): the second number is the resident set in pages.
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return footprint{len(fds), statusOf(t, m.Point).Goroutines, pages * int64(os.Getpagesize())}
}

// images builds n small images in a folder.
func images(t *testing.T, n int) (dir string, list []*rig.Image) {
	t.Helper()
	rig.Need(t, "qemu-img")
	dir = t.TempDir()
	for i := range n {
		list = append(list, rig.Chain{Name: fmt.Sprintf("disk%02d", i), Size: 1 << 20, Seed: uint64(i), Layers: []rig.Layer{
			{Writes: []rig.Write{{Off: 0, Len: 300_000}, {Kind: rig.Compressed, Off: 512 << 10, Len: 128 << 10}}},
			{Writes: []rig.Write{{Off: 100_000, Len: 300_000}}},
		}}.Build(t, dir))
	}
	return dir, list
}

// checkRange reads a random range of an open view and compares it.
func checkRange(f *os.File, im *rig.Image, r *rand.Rand) error {
	off := r.Int64N(im.Size)
	got := make([]byte, 1+r.Int64N(min(im.Size-off, 64<<10)))
	if _, err := f.ReadAt(got, off); err != nil {
		return err
	}
	if string(got) != string(im.Want.Bytes(off, int64(len(got)))) {
		return fmt.Errorf("%s: %d bytes at %#x differ", f.Name(), len(got), off)
	}
	return nil
}

// TestMountLeaks opens and closes views very often, then has very many readers,
// and measures what is left in the server.
func TestMountLeaks(t *testing.T) {
	opens, readers, views := 10_000, 200, 50
	if testing.Short() {
		opens, readers, views = 500, 40, 10
	}
	dir, list := images(t, views)
	m := rig.NewMount(t, "--format", "raw", "--format", "qcow2", dir)
	open := func(i int) (*os.File, *rig.Image, error) {
		im := list[i%views]
		f, err := os.Open(view(m.Point, im.Top, ".raw"))
		return f, im, err
	}
	run := func(opens int) {
		var all sync.WaitGroup
		for worker := range 4 {
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(worker), 1))
				for range opens / 4 {
					f, im, err := open(r.IntN(views))
					if err == nil {
						err = errors.Join(checkRange(f, im, r), f.Close())
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		var begun sync.WaitGroup
		begun.Add(readers)
		for i := range readers {
			all.Go(func() {
				r := rand.New(rand.NewPCG(uint64(i), 2))
				f, im, err := open(i)
				begun.Done()
				begun.Wait() // all have their view open at once
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				for range 20 {
					if err := checkRange(f, im, r); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	idle := func(what string) footprint {
		rig.Eventually(t, soon, "all images are closed "+what, func() bool {
			for _, v := range statusOf(t, m.Point).Views {
				if v.Open {
					return false
				}
			}
			return true
		})
		return footprintOf(t, m)
	}
	// Caches, pools and threads come with the first load.
	run(opens / 10)
	before := idle("after a first load")
	run(opens)
	after := idle("after the load")
	t.Logf("%d opens, %d readers of %d views: before %+v, after %+v", opens, readers, views, before, after)
	// go-fuse keeps pipes, two descriptors each, for as many readers as there
	// were at once; so does the runtime threads.
	if after.descriptors > before.descriptors+16 {
		t.Errorf("%d descriptors, before %d", after.descriptors, before.descriptors)
	}
	if after.goroutines > before.goroutines+16 {
		t.Errorf("%d goroutines, before %d", after.goroutines, before.goroutines)
	}
	if after.rss > before.rss+32<<20 {
		t.Errorf("%d MiB resident, before %d", after.rss>>20, before.rss>>20)
	}
}

// TestMountEndsUnderLoad ends a server with many busy readers.
func TestMountEndsUnderLoad(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			dir, list := images(t, 4)
			m := rig.NewMount(t, "-o", "direct_io", dir)
			var all, begun sync.WaitGroup
			begun.Add(20)
			for i := range 20 {
				all.Go(func() {
					r := rand.New(rand.NewPCG(uint64(i), 3))
					f, err := os.Open(view(m.Point, list[i%4].Top, ".raw"))
					if err == nil {
						defer f.Close()
						err = checkRange(f, list[i%4], r)
					}
					begun.Done()
					if err != nil {
						t.Error(err)
						return
					}
					for err == nil {
						err = checkRange(f, list[i%4], r)
					}
					// ECONNABORTED for what was under way, ENOTCONN later; EIO
					// from a server that is closing its images.
					if !errors.Is(err, syscall.ENOTCONN) && !errors.Is(err, syscall.ECONNABORTED) && !errors.Is(err, syscall.EIO) {
						t.Error(err)
					}
				})
			}
			begun.Wait() // all are busy
			began := time.Now()
			if err := syscall.Kill(m.PID, sig); err != nil {
				t.Fatal(err)
			}
			rig.Eventually(t, soon, "the server has ended", func() bool { return len(rig.Servers(t, m.Point)) == 0 })
			all.Wait()
			t.Logf("ended after %v", time.Since(began))
			if sig != syscall.SIGKILL {
				if rig.IsMounted(t, m.Point) {
					t.Error("still mounted")
				}
				return
			}
			if _, err := os.ReadDir(m.Point); !errors.Is(err, syscall.ENOTCONN) {
				t.Errorf("listing what a killed server has left: %v, want ENOTCONN", err)
			}
			if r := rig.Flatimg(t, "mount", dir, m.Point); r.Code != 8 || !strings.Contains(r.Stderr, "stale") {
				t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
			}
			rig.MustFlatimg(t, "unmount", m.Point)
			rig.MustFlatimg(t, "mount", dir, m.Point)
			rig.CompareContent(t, view(m.Point, list[0].Top, ".raw"), list[0].Want)
			rig.MustFlatimg(t, "unmount", m.Point)
		})
	}
}
