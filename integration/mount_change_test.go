package integration

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// onRaw builds an image of three layers, a raw one lowest, all of which have
// data that shows.
func onRaw(t *testing.T, dir string, seed uint64) *rig.Image {
	t.Helper()
	rig.Need(t, "qemu-img")
	return rig.Chain{Size: 4 << 20, Seed: seed, Layers: []rig.Layer{
		{Format: "raw", Writes: []rig.Write{{Off: 0, Len: 3 << 20}}},
		{Writes: []rig.Write{{Off: 1 << 20, Len: 1 << 20}}},
		{Writes: []rig.Write{{Off: 2 << 20, Len: 1 << 20}}},
	}}.Build(t, dir)
}

// inPlace are ways to change a file under its name.
var inPlace = map[string]func(path string) error{
	"written": func(path string) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(make([]byte, 4096), 256<<10)
		return errors.Join(err, f.Close())
	},
	"truncated": func(path string) error { return os.Truncate(path, 128<<10) },
}

// TestMountChangedLayer changes each layer in each way under a reader. Whatever
// is read, through the kernel's cache or past it, is an error from then on.
func TestMountChangedLayer(t *testing.T) {
	for how, change := range inPlace {
		for layer := range 3 {
			for _, mode := range []string{"cached", "direct_io"} {
				t.Run(how+" "+string(rune('0'+layer))+" "+mode, func(t *testing.T) {
					t.Parallel()
					im := onRaw(t, t.TempDir(), 1)
					args := []string{im.Dir}
					if mode == "direct_io" {
						args = []string{"-o", mode, im.Dir}
					}
					m := rig.NewMount(t, args...)
					f, err := os.Open(view(m.Point, im.Top, ".raw"))
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					read := func() error {
						b := make([]byte, im.Size)
						n, err := f.ReadAt(b, 0)
						if string(b[:n]) != string(im.Want.Bytes(0, int64(n))) {
							t.Fatal("other bytes than before the change")
						}
						return err
					}
					if err := read(); err != nil {
						t.Fatal(err)
					}
					if err := change(im.Paths[layer]); err != nil {
						t.Fatal(err)
					}
					if mode == "direct_io" {
						time.Sleep(10 * time.Millisecond) // longer than checkEvery in package fs
						if err := read(); !errors.Is(err, syscall.EIO) {
							t.Errorf("the next read: %v, want EIO", err)
						}
					}
					rig.Eventually(t, soon, "EIO also for what the kernel has cached", func() bool {
						return errors.Is(read(), syscall.EIO)
					})
					text := listed(t, m.Point)
					logged, _ := os.ReadFile(m.Log)
					for name, text := range map[string]string{"errors": text, "log": string(logged)} {
						if !strings.Contains(text, im.Paths[layer]+" has changed") || !strings.Contains(text, "seen at 20") {
							t.Errorf("%s: not which layer and when:\n%s", name, text)
						}
					}
					f.Close()
					rig.Eventually(t, soon, "errors forgets it when nobody has the old state open", func() bool {
						return !strings.Contains(listed(t, m.Point), "has changed")
					})
				})
			}
		}
	}
}

// TestMountOpensNewState changes files in all ways and opens the view at once:
// the kernel still knows the old node, and must not open it.
func TestMountOpensNewState(t *testing.T) {
	old, next := onRaw(t, t.TempDir(), 1), onRaw(t, t.TempDir(), 2)
	point := rig.Mount(t, old.Dir)
	path := view(point, old.Top, ".raw")
	rig.CompareContent(t, path, old.Want)
	for i, from := range next.Paths {
		text, err := os.ReadFile(from)
		if err := errors.Join(err, os.WriteFile(old.Paths[i], text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	rig.CompareContent(t, path, next.Want)

	third := onRaw(t, t.TempDir(), 3)
	for i, from := range third.Paths {
		if err := os.Rename(from, old.Paths[i]); err != nil {
			t.Fatal(err)
		}
	}
	rig.CompareContent(t, path, third.Want)

	if err := os.Remove(old.Paths[1]); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Open(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without one of its layers: %v", err)
	}
}

// TestMountReplacedThenChanged overwrites a file that has no name any more
// under a reader who still has the view of it open.
func TestMountReplacedThenChanged(t *testing.T) {
	im := onRaw(t, t.TempDir(), 1)
	point := rig.Mount(t, im.Dir)
	f, err := os.Open(view(point, im.Top, ".raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	base, err := os.OpenFile(im.Paths[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	for _, path := range im.Paths {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, soon, "the view is gone", func() bool { return len(names(t, point)) == 0 })
	if text, err := io.ReadAll(f); err != nil || string(text) != string(im.Want.Bytes(0, im.Size)) {
		t.Fatalf("deleted files: %d bytes, %v", len(text), err)
	}
	if _, err := base.WriteAt([]byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, soon, "EIO for what the kernel has cached", func() bool {
		_, err := f.ReadAt(make([]byte, 4096), 0)
		return errors.Is(err, syscall.EIO)
	})
	if text := listed(t, point); !strings.Contains(text, filepath.Base(im.Paths[0])) {
		t.Errorf("errors do not name it:\n%s", text)
	}
}

// TestMountLayerOutOfReach takes away the file system that a layer is on.
func TestMountLayerOutOfReach(t *testing.T) {
	rig.NeedRoot(t)
	dir := rig.TmpFS(t, 16<<20)
	im := onRaw(t, dir, 1)
	point := rig.Mount(t, im.Dir)
	rig.CompareContent(t, view(point, im.Top, ".raw"), im.Want)
	rig.Run(t, "umount", "--lazy", dir)
	rig.Eventually(t, soon, "the view is gone", func() bool { return len(names(t, point)) == 0 })
	if text := listed(t, point); !strings.HasPrefix(text, dir) && text != "" {
		t.Errorf("errors are\n%s", text)
	}
}
