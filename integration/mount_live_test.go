package integration

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// soon is more than what is to come soon takes on a machine that is busy, such
// as a change in a source to show, which is looked for each second; but after a
// look of three seconds, in which the machine did something else, a minute later.
const soon = 90 * time.Second

// small builds an image of two layers with contents of its own.
func small(t *testing.T, dir, name string, seed uint64) *rig.Image {
	t.Helper()
	rig.Need(t, "qemu-img")
	return rig.Chain{Name: name, Size: 1 << 20, Seed: seed, Layers: []rig.Layer{
		{Writes: []rig.Write{{Kind: rig.Data, Off: 0, Len: 300_000}}},
		{Writes: []rig.Write{{Kind: rig.Data, Off: 100_000, Len: 300_000}}},
	}}.Build(t, dir)
}

// appear is [small] in the folder of a mount: no look at the folder finds a file
// that is still being written, which would be left alone for a while.
func appear(t *testing.T, dir, name string, seed uint64) *rig.Image {
	t.Helper()
	im := small(t, t.TempDir(), name, seed)
	move(t, im, dir)
	return im
}

// move moves an image to a folder, base first.
func move(t *testing.T, im *rig.Image, dir string) {
	t.Helper()
	for i, path := range im.Paths {
		im.Paths[i] = filepath.Join(dir, filepath.Base(path))
		if err := os.Rename(path, im.Paths[i]); err != nil {
			t.Fatal(err)
		}
	}
	im.Dir, im.Top = dir, im.Paths[len(im.Paths)-1]
}

// names lists a mount.
func names(t *testing.T, point string) []string {
	t.Helper()
	entries, err := os.ReadDir(point)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func wantNames(t *testing.T, point string, want ...string) {
	t.Helper()
	if got := names(t, point); !slices.Equal(got, want) {
		t.Errorf("the mount has %q, want %q", got, want)
	}
}

// listed returns .flatimg/errors.
func listed(t *testing.T, point string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(point, ".flatimg", "errors"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMountFolderIsLive lets images come and go.
func TestMountFolderIsLive(t *testing.T) {
	dir := t.TempDir()
	small(t, dir, "one", 1)
	point := rig.Mount(t, dir)
	wantNames(t, point, "one.raw")

	// A name that was not there a moment ago is found at once, with no
	// listing in between.
	two := filepath.Join(point, "two.raw")
	if _, err := os.Stat(two); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("two.raw before its image: %v", err)
	}
	im := appear(t, dir, "two", 2)
	rig.CompareContent(t, two, im.Want)
	wantNames(t, point, "one.raw", "two.raw")

	// Who has a view open reads on after its image is gone.
	f, err := os.Open(two)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, path := range im.Paths {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, soon, "two.raw is gone though it is open", func() bool {
		_, err := os.Stat(two)
		return errors.Is(err, os.ErrNotExist)
	})
	wantNames(t, point, "one.raw")
	text, err := io.ReadAll(f)
	if err != nil || string(text) != string(im.Want.Bytes(0, im.Size)) {
		t.Errorf("after the image was removed: %d bytes, %v", len(text), err)
	}
}

// TestMountFollowsReplacedImage puts another image in the place of one that is
// open and cached.
func TestMountFollowsReplacedImage(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	old := small(t, dir, "disk", 1)
	point := rig.Mount(t, dir)
	path := view(point, old.Top, ".raw")
	rig.CompareContent(t, path, old.Want)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, _ := f.Stat()

	replacement := small(t, other, "disk", 2)
	for i := range replacement.Paths {
		if err := os.Rename(replacement.Paths[i], old.Paths[i]); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, soon, "the view shows the new image", func() bool {
		text, err := os.ReadFile(path)
		return err == nil && string(text) == string(replacement.Want.Bytes(0, replacement.Size))
	})
	if text, err := io.ReadAll(f); err != nil || string(text) != string(old.Want.Bytes(0, old.Size)) {
		t.Errorf("who had the old one open: %d bytes, %v", len(text), err)
	}
	after, err := os.Stat(path)
	if err != nil || before.Sys().(*syscall.Stat_t).Ino != after.Sys().(*syscall.Stat_t).Ino {
		t.Errorf("the inode number of the name changed (%v)", err)
	}
}

// TestMountRefusesMixedStates overwrites a layer while a view is open.
func TestMountRefusesMixedStates(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	m := rig.NewMount(t, im.Dir)
	point := m.Point
	path := view(point, im.Top, ".raw")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}

	// Not by QEMU, which keeps its locks.
	other := small(t, t.TempDir(), "disk", 2)
	for i, from := range other.Paths {
		text, err := os.ReadFile(from)
		if err := errors.Join(err, os.WriteFile(im.Paths[i], text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	rig.Eventually(t, soon, "EIO for who had it open", func() bool {
		_, err := f.ReadAt(make([]byte, 4096), 0)
		return errors.Is(err, syscall.EIO)
	})
	rig.CompareContent(t, path, other.Want)
	text, _ := os.ReadFile(m.Log)
	if !strings.Contains(string(text), im.Paths[0]+" has changed") {
		t.Errorf("the log does not name %s:\n%s", im.Paths[0], text)
	}
}

// TestMountTruncatedLayer cuts off a layer under a reader, which must not read
// zeros for what is gone.
func TestMountTruncatedLayer(t *testing.T) {
	rig.Need(t, "qemu-img")
	for _, size := range []int{4096, 1 << 20} {
		im := rig.Chain{Size: 8 << 20, Layers: []rig.Layer{{
			Format: "raw", Writes: []rig.Write{{Kind: rig.Data, Off: 0, Len: 8 << 20}},
		}}}.Build(t, t.TempDir())
		point := rig.Mount(t, "-o", "direct_io", im.Dir)
		f, err := os.Open(view(point, im.Top, ".raw"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		// The map is resolved before, and knows of no hole there.
		if _, err := f.ReadAt(make([]byte, size), 6<<20); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(im.Top, 4<<20); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(make([]byte, size), 6<<20); !errors.Is(err, syscall.EIO) {
			t.Errorf("%d bytes of what is gone: %v, want EIO", size, err)
		}
	}
}

// TestMountBrokenImage has images that can't be shown between others.
func TestMountBrokenImage(t *testing.T) {
	dir := t.TempDir()
	good := small(t, dir, "good", 1)
	orphan := small(t, dir, "orphan", 2)
	base := orphan.Paths[0]
	if err := os.Rename(base, base+".away"); err != nil {
		t.Fatal(err)
	}
	garbage := filepath.Join(dir, "garbage.qcow2")
	// An image that says that it is qcow2 version 9.
	if err := os.WriteFile(garbage, append([]byte("QFI\xfb\x00\x00\x00\x09"), make([]byte, 1000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"notes.txt": "no image", ".hidden.qcow2": "QFI\xfb"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loop := filepath.Join(dir, "loop.qcow2")
	rig.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "loop.qcow2", "-F", "qcow2", loop, "1M")

	m := rig.NewMount(t, dir)
	point := m.Point
	rig.CompareContent(t, view(point, good.Top, ".raw"), good.Want)
	text := listed(t, point)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], garbage+": ") || !strings.HasPrefix(lines[1], loop+": ") || !strings.HasPrefix(lines[2], orphan.Top+": ") {
		t.Errorf("errors are\n%s", text)
	}
	for _, path := range []string{orphan.Top, garbage, loop} {
		logged, _ := os.ReadFile(m.Log)
		if n := strings.Count(string(logged), "path="+path); n != 1 {
			t.Errorf("%s is in the log %d times:\n%s", path, n, logged)
		}
	}

	// It recovers.
	if err := os.Rename(base+".away", base); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, soon, "the repaired image is shown", func() bool {
		return slices.Contains(names(t, point), "orphan.raw")
	})
	rig.CompareContent(t, view(point, orphan.Top, ".raw"), orphan.Want)
	if text := listed(t, point); strings.Contains(text, "orphan") {
		t.Errorf("still in errors:\n%s", text)
	}
}
