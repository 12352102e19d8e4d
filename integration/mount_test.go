package integration

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"flatimg/integration/rig"
)

// layered builds an image of four layers that has a bit of everything.
func layered(t *testing.T, dir, name string) *rig.Image {
	t.Helper()
	rig.Need(t, "qemu-img")
	return rig.Chain{Name: name, Size: 24<<20 + 512, Seed: 7, Layers: []rig.Layer{
		{Format: "raw", Size: 5<<20 + 512, Writes: []rig.Write{{Kind: rig.Data, Off: 4096, Len: 4 << 20}}},
		{Writes: []rig.Write{
			{Kind: rig.Data, Off: 1<<20 + 1000, Len: 70000},
			{Kind: rig.Compressed, Off: 8 << 20, Len: 2 << 20},
			{Kind: rig.Data, Off: 12 << 20, Len: 6 << 20},
		}},
		{Writes: []rig.Write{
			{Kind: rig.Zero, Off: 13 << 20, Len: 1 << 20},
			{Kind: rig.Data, Off: 9 << 20, Len: 3 * 65536},
		}},
		{Writes: []rig.Write{
			{Kind: rig.Discard, Off: 2 << 20, Len: 1 << 20},
			{Kind: rig.Data, Off: 24<<20 - 4096, Len: 4096 + 512},
		}},
	}}.Build(t, dir)
}

func TestMountShowsContent(t *testing.T) {
	rig.Need(t, "qemu-img")
	for seed := range uint64(6) {
		for _, mode := range [][]string{nil, {"-o", "direct_io"}} {
			t.Run(fmt.Sprint(seed, mode), func(t *testing.T) {
				im := rig.RandomChain(seed+100).Build(t, t.TempDir())
				point := rig.Mount(t, append(mode, "--format", "raw", "--format", "qcow2", im.Dir)...)
				raw, qcow2 := view(point, im.Top, ".raw"), view(point, im.Top, ".qcow2")
				rig.CompareContent(t, raw, im.Want)

				flat := filepath.Join(t.TempDir(), "flat")
				rig.Run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", qcow2, flat)
				rig.CompareContent(t, flat, im.Want)
				rig.Run(t, "qemu-img", "check", "-q", "-f", "qcow2", qcow2)
			})
		}
	}
}

// view returns the path of an image's view.
func view(point, image, extension string) string {
	name := filepath.Base(image)
	return filepath.Join(point, strings.TrimSuffix(name, filepath.Ext(name))+extension)
}

// TestMountRandomReads reads ranges of all sizes and alignments, most of which
// no kernel cache would ask for.
func TestMountRandomReads(t *testing.T) {
	im := layered(t, t.TempDir(), "disk")
	point := rig.Mount(t, "-o", "direct_io", im.Top)
	f, err := os.Open(view(point, im.Top, ".raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		off := r.Int64N(im.Size)
		n := min(r.Int64N(1<<r.IntN(22)+1)+1, im.Size-off)
		got := make([]byte, n)
		if _, err := f.ReadAt(got, off); err != nil {
			t.Fatalf("%d bytes at %#x: %v", n, off, err)
		}
		if want := im.Want.Bytes(off, n); string(got) != string(want) {
			t.Fatalf("%d bytes at %#x differ", n, off)
		}
	}
	if n, err := f.ReadAt(make([]byte, 4096), im.Size-100); n != 100 || !errors.Is(err, io.EOF) {
		t.Errorf("read over the end: %d, %v", n, err)
	}
}

// TestMountCopies copies a view by the tools that people use.
func TestMountCopies(t *testing.T) {
	im := layered(t, t.TempDir(), "disk")
	point := rig.Mount(t, im.Dir)
	raw := view(point, im.Top, ".raw")
	copies := map[string]func(t *testing.T, dir string){
		"cp":            func(t *testing.T, dir string) { rig.Run(t, "cp", raw, dir) },
		"cp sparse":     func(t *testing.T, dir string) { rig.Run(t, "cp", "--sparse=always", raw, dir) },
		"cp not sparse": func(t *testing.T, dir string) { rig.Run(t, "cp", "--sparse=never", raw, dir) },
		"rsync":         func(t *testing.T, dir string) { rig.Run(t, "rsync", "-aS", raw, dir) },
		"rsync folder":  func(t *testing.T, dir string) { rig.Run(t, "rsync", "-aS", point+"/", dir) },
		"qemu-img": func(t *testing.T, dir string) {
			rig.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "raw", raw, filepath.Join(dir, "disk.raw"))
		},
		"tar": func(t *testing.T, dir string) {
			rig.Run(t, "tar", "-C", point, "-S", "-cf", filepath.Join(dir, "tar"), "disk.raw")
			rig.Run(t, "tar", "-C", dir, "-S", "-xf", filepath.Join(dir, "tar"))
		},
		"scp": func(t *testing.T, dir string) {
			s := rig.Sshd(t)
			config := strings.Fields(s.Command)[1:]
			rig.Run(t, "scp", append(config, raw, s.User+"@"+s.Host+":"+dir)...)
		},
	}
	for name, copy := range copies {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			copy(t, dir)
			rig.CompareContent(t, filepath.Join(dir, "disk.raw"), im.Want)
		})
	}
}

// TestMountLoop mounts a file system that is in a view.
func TestMountLoop(t *testing.T) {
	rig.NeedRoot(t)
	rig.Need(t, "losetup")
	dir, files := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "hello"), []byte("from below"), 0o644); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(t.TempDir(), "plain")
	rig.Run(t, "mkfs.ext4", "-q", "-d", files, plain, "32M")
	rig.Run(t, "qemu-img", "convert", "-O", "qcow2", "-c", plain, filepath.Join(dir, "base.qcow2"))
	rig.RunIn(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "disk.qcow2")

	point := rig.Mount(t, dir)
	device := strings.TrimSpace(rig.Run(t, "losetup", "-r", "--find", "--show", filepath.Join(point, "disk.raw")))
	defer rig.Run(t, "losetup", "-d", device)
	inside := t.TempDir()
	rig.Run(t, "mount", "-o", "ro", device, inside)
	defer rig.Run(t, "umount", inside)
	text, err := os.ReadFile(filepath.Join(inside, "hello"))
	if err != nil || string(text) != "from below" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestMountHoles walks over data and holes: holes are zeros, data adds up to
// st_blocks, and what was never written is no data.
func TestMountHoles(t *testing.T) {
	im := layered(t, t.TempDir(), "disk")
	point := rig.Mount(t, "--format", "raw", "--format", "qcow2", im.Dir)
	f, err := os.Open(view(point, im.Top, ".raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	var data int64
	for off := int64(0); off < im.Size; {
		start, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			start = im.Size
		} else if err != nil {
			t.Fatal(err)
		}
		if hole := im.Want.Bytes(off, start-off); strings.Trim(string(hole), "\x00") != "" {
			t.Fatalf("data in what is called a hole: %#x to %#x", off, start)
		}
		if start == im.Size {
			break
		}
		end, err := unix.Seek(fd, start, unix.SEEK_HOLE)
		if err != nil || end <= start {
			t.Fatalf("SEEK_HOLE from %#x: %#x, %v", start, end, err)
		}
		data += end - start
		off = end
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	if want := (data + 511) / 512; st.Blocks != want {
		t.Errorf("st_blocks is %d, data takes %d", st.Blocks, want)
	}
	if written := int64(15 << 20); data > written {
		t.Errorf("%d bytes are data, not more than %d were written", data, written)
	}
	if _, err := unix.Seek(fd, im.Size, unix.SEEK_HOLE); !errors.Is(err, unix.ENXIO) {
		t.Errorf("SEEK_HOLE at the end: %v, want ENXIO", err)
	}
}

func TestMountAttributes(t *testing.T) {
	im := layered(t, t.TempDir(), "disk")
	newest := time.Unix(1_600_000_000, 123_000_000)
	for i, path := range im.Paths {
		if err := os.Chtimes(path, newest, newest.Add(-time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	stat := func(path string) unix.Stat_t {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	point := rig.Mount(t, "--format", "raw", "--format", "qcow2", im.Dir)
	for _, extension := range []string{".raw", ".qcow2"} {
		path := view(point, im.Top, extension)
		first := stat(path)
		if got := time.Unix(first.Mtim.Unix()); !got.Equal(newest) {
			t.Errorf("%s: mtime %v, want %v", extension, got, newest)
		}
		if first.Mode != unix.S_IFREG|0o400 || int(first.Uid) != os.Geteuid() {
			t.Errorf("%s: mode %o, owner %d", extension, first.Mode, first.Uid)
		}
		text, err := os.ReadFile(path)
		if err != nil || int64(len(text)) != first.Size {
			t.Errorf("%s: %d bytes, %v; st_size %d", extension, len(text), err, first.Size)
		}
		if again := stat(path); again != first {
			t.Errorf("%s: stat changed from %+v to %+v", extension, first, again)
		}
	}
	if st := stat(view(point, im.Top, ".raw")); st.Size != im.Size {
		t.Errorf("st_size %d, want %d", st.Size, im.Size)
	}
	if out := rig.Run(t, "df", "--output=fstype,target", point); !strings.Contains(out, "fuse.flatimg") {
		t.Errorf("df: %s", out)
	}
}

func TestMountIsReadOnly(t *testing.T) {
	im := layered(t, t.TempDir(), "disk")
	point := rig.Mount(t, im.Dir)
	raw, other := view(point, im.Top, ".raw"), filepath.Join(point, "other")
	open := func(path string, flags int) error {
		f, err := os.OpenFile(path, flags, 0o600)
		if err == nil {
			f.Close()
		}
		return err
	}
	for name, err := range map[string]error{
		"open for writing": open(raw, os.O_RDWR),
		"open to truncate": open(raw, os.O_RDONLY|os.O_TRUNC),
		"create":           open(other, os.O_CREATE|os.O_WRONLY),
		"truncate":         os.Truncate(raw, 0),
		"unlink":           os.Remove(raw),
		"rename":           os.Rename(raw, other),
		"mkdir":            os.Mkdir(other, 0o700),
		"symlink":          os.Symlink("x", other),
		"link":             os.Link(raw, other),
		"chmod":            os.Chmod(raw, 0o600),
		"chtimes":          os.Chtimes(raw, time.Now(), time.Now()),
		"access":           unix.Access(raw, unix.W_OK),
	} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
	if err := unix.Access(raw, unix.X_OK); !errors.Is(err, unix.EACCES) {
		t.Errorf("access for execution: %v, want EACCES", err)
	}
}

func TestMountParallelReaders(t *testing.T) {
	im := layered(t, t.TempDir(), "disk")
	for _, mode := range [][]string{nil, {"-o", "direct_io"}} {
		point := rig.Mount(t, append(mode, im.Dir)...)
		var readers sync.WaitGroup
		for i := range 4 {
			readers.Go(func() {
				f, err := os.Open(view(point, im.Top, ".raw"))
				if err != nil {
					t.Error(err)
					return
				}
				defer f.Close()
				r := rand.New(rand.NewPCG(uint64(i), 3))
				for range 500 {
					off := r.Int64N(im.Size-300_000) &^ 511
					got := make([]byte, 1+r.IntN(300_000))
					if _, err := f.ReadAt(got, off); err != nil {
						t.Error(err)
						return
					}
					if string(got) != string(im.Want.Bytes(off, int64(len(got)))) {
						t.Errorf("%d bytes at %#x differ", len(got), off)
						return
					}
				}
			})
		}
		readers.Wait()
	}
}
