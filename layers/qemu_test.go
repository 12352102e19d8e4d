package layers_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"flatimg/integration/rig"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// TestRandomChains reads chains with everything that QEMU can make and compares
// them with what was written, and with what QEMU reads.
func TestRandomChains(t *testing.T) {
	rig.Need(t, "qemu-img")
	rig.Need(t, "qemu-io")
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			chain := rig.RandomChain(seed)
			built := chain.Build(t, dir)
			for i, path := range built.Paths {
				im := open(t, path, layers.Options{Format: formatOf(path)})
				checkContent(t, im, built.Layers[i], rand.New(rand.NewPCG(seed, uint64(i))))
				checkExtents(t, im, built.Layers[i])
			}
			flat := filepath.Join(dir, "flat")
			rig.Run(t, "qemu-img", "convert", "-f", formatOf(built.Top), "-O", "raw", built.Top, flat)
			rig.CompareContent(t, flat, built.Want)
		})
	}
}

// formatOf is the format that a volume of the rig has.
func formatOf(path string) string { return strings.TrimPrefix(filepath.Ext(path), ".") }

func open(t *testing.T, path string, opts layers.Options) *layers.Image {
	t.Helper()
	im, err := layers.Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := im.Close(); err != nil {
			t.Error(err)
		}
	})
	return im
}

// checkContent reads all of im in steps of random size, and random ranges from
// several goroutines.
func checkContent(t *testing.T, im *layers.Image, want *rig.Content, rng *rand.Rand) {
	t.Helper()
	if im.Size() != want.Size() {
		t.Fatalf("size %d, want %d", im.Size(), want.Size())
	}
	check := func(off, length int64) {
		got := make([]byte, length)
		if n, err := im.ReadAt(got, off); err != nil || int64(n) != length {
			t.Errorf("read of %d bytes at %#x: %d, %v", length, off, n, err)
		} else if !bytes.Equal(got, want.Bytes(off, length)) {
			t.Errorf("%d bytes at %#x differ", length, off)
		}
	}
	for off := int64(0); off < im.Size() && !t.Failed(); {
		n := min(im.Size()-off, 1+rng.Int64N(1<<20))
		check(off, n)
		off += n
	}
	var wg sync.WaitGroup
	for range 4 {
		seed := rng.Uint64()
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 0))
			for range 50 {
				off := rng.Int64N(im.Size())
				check(off, 1+rng.Int64N(min(im.Size()-off, 100_000)))
			}
		})
	}
	wg.Wait()
}

// checkExtents checks that the extents cover the disk, are merged, and are
// true: nothing but data and compressed ones holds bytes that are not zero.
func checkExtents(t *testing.T, im *layers.Image, want *rig.Content) {
	t.Helper()
	var at int64
	var last layers.Extent
	for e, err := range im.Extents(0, layers.MaxLength) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Offset != at || e.Length <= 0 {
			t.Fatalf("extent %+v begins at %#x, want %#x", e, e.Offset, at)
		}
		if e.Kind == volume.Zero && e.Host == volume.NoHost && last.Kind == e.Kind && last.Layer == e.Layer && last.Host == e.Host && at > 0 {
			t.Errorf("extents %+v and %+v are not merged", last, e)
		}
		switch e.Kind {
		case volume.Data:
			got := make([]byte, min(e.Length, 4096))
			if _, err := im.Layers()[e.Layer].Files()[e.File].ReadAt(got, e.Host); err != nil {
				t.Errorf("extent %+v: %v", e, err)
			} else if !bytes.Equal(got, want.Bytes(e.Offset, int64(len(got)))) {
				t.Errorf("extent %+v: the host offset leads to other bytes", e)
			}
		case volume.Hole, volume.Zero, volume.Unwritten:
			if b := want.Bytes(e.Offset, e.Length); len(bytes.Trim(b, "\x00")) != 0 {
				t.Errorf("extent %+v should be zeros", e)
			}
		}
		at, last = e.Offset+e.Length, e
	}
	if at != im.Size() {
		t.Errorf("extents end at %#x, want %#x", at, im.Size())
	}
}

// TestReadAtEnd checks what io.ReaderAt promises at the end of the disk.
func TestReadAtEnd(t *testing.T) {
	built := rig.Chain{Size: 1 << 20, Layers: []rig.Layer{{Writes: []rig.Write{{Off: 0, Len: 1 << 20}}}}}.Build(t, t.TempDir())
	im := open(t, built.Top, layers.Options{})
	p := make([]byte, 1024)
	for _, c := range []struct {
		off int64
		n   int
		err error
	}{
		{1<<20 - 1024, 1024, nil},
		{1<<20 - 1000, 1000, io.EOF},
		{1 << 20, 0, io.EOF},
		{1 << 40, 0, io.EOF},
	} {
		if n, err := im.ReadAt(p, c.off); n != c.n || !errors.Is(err, c.err) {
			t.Errorf("read at %#x: %d, %v; want %d, %v", c.off, n, err, c.n, c.err)
		}
	}
	if _, err := im.ReadAt(p, -1); err == nil {
		t.Error("a read at a negative offset succeeds")
	}
	if _, err := im.AppendSegments(nil, 1<<20-1, 2); err == nil {
		t.Error("segments past the end succeed")
	}
}

// TestSnapshots opens internal snapshots by name and by ID; one was taken when
// the disk was smaller.
func TestSnapshots(t *testing.T) {
	built := rig.Chain{Size: 4 << 20, Layers: []rig.Layer{{Options: "cluster_size=4k", Writes: []rig.Write{{Off: 4096, Len: 1 << 20}}}}}.Build(t, t.TempDir())
	first := built.Want
	rig.Run(t, "qemu-img", "snapshot", "-c", "before", built.Top)
	built.Write(t, rig.Write{Off: 0, Len: 8192}, rig.Write{Kind: rig.Zero, Off: 65536, Len: 65536})
	second := built.Want
	rig.Run(t, "qemu-img", "snapshot", "-c", "after", built.Top)
	built.Write(t, rig.Write{Off: 3 << 20, Len: 4096})

	rng := rand.New(rand.NewPCG(1, 1))
	prints := make(map[[32]byte]int)
	for name, want := range map[string]*rig.Content{"before": first, "1": first, "after": second, "2": second, "": built.Want} {
		im, err := layers.Open(built.Top, layers.Options{Snapshot: name})
		if err != nil {
			t.Fatal(err)
		}
		checkContent(t, im, want, rng)
		prints[im.Fingerprint()]++
		im.Close() // QEMU may not write to it before that
	}
	// By name and by ID it is the same snapshot, and each is another image.
	if len(prints) != 3 {
		t.Errorf("%d fingerprints for two snapshots and the active state", len(prints))
	}
	s, err := layers.Probe(built.Top, layers.Options{})
	if err != nil || len(s.Snapshots) != 2 || s.Snapshots[0].Name != "before" || s.Snapshots[1].ID != "2" {
		t.Errorf("probe: %+v, %v", s, err)
	}
	_, err = layers.Open(built.Top, layers.Options{Snapshot: "gone"})
	wantError(t, err, layers.ErrSource, `no snapshot "gone"`, `"before" (ID 1)`)

	// A snapshot keeps the size that the disk had.
	rig.Run(t, "qemu-img", "resize", "-q", "-f", "qcow2", built.Top, "8M")
	checkContent(t, open(t, built.Top, layers.Options{Snapshot: "before"}), first, rng)
}

// TestPreallocated: clusters that were allocated in advance and never written
// are holes of the file, and the map says so.
func TestPreallocated(t *testing.T) {
	rig.Need(t, "qemu-img")
	top := filepath.Join(t.TempDir(), "top.qcow2")
	rig.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", top, "1G")
	rig.Run(t, "qemu-io", "-f", "qcow2", "-c", "write -q -P 7 512M 1M", top)
	im := open(t, top, layers.Options{})
	var data, unwritten int64
	for e, err := range im.Extents(0, layers.MaxLength) {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Kind {
		case volume.Data:
			data += e.Length
		case volume.Unwritten:
			unwritten += e.Length
		}
	}
	if data != 1<<20 || unwritten != 1<<30-1<<20 {
		t.Errorf("%d bytes of data and %d unwritten", data, unwritten)
	}
}

// TestTruncated cuts an image off at many places: it is refused, there or when
// the part that is missing is read, or it reads as before. Never other bytes.
func TestTruncated(t *testing.T) {
	built := rig.Chain{Size: 1 << 20, Layers: []rig.Layer{{
		Options: "cluster_size=4k",
		Writes:  []rig.Write{{Off: 0, Len: 300_032}, {Kind: rig.Compressed, Off: 512 << 10, Len: 64 << 10}},
	}}}.Build(t, t.TempDir())
	whole, err := os.ReadFile(built.Top)
	if err != nil {
		t.Fatal(err)
	}
	want := built.Want.Bytes(0, built.Size)
	cut := filepath.Join(built.Dir, "cut.qcow2")
	refused := 0
	for size := 0; size < len(whole); size += 3*4096 + 100 {
		if err := os.WriteFile(cut, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		im, err := layers.Open(cut, layers.Options{Format: "qcow2"})
		got := make([]byte, built.Size)
		if err == nil {
			_, err = im.ReadAt(got, 0)
			im.Close()
		}
		if err != nil {
			refused++
			if !errors.Is(err, layers.ErrSource) || !strings.Contains(err.Error(), cut) {
				t.Errorf("cut at %d: %v", size, err)
			}
			continue
		}
		// What is missing may be the end of a cluster only.
		for i := range got {
			if got[i] != want[i] && got[i] != 0 {
				t.Fatalf("cut at %d: byte %#x is wrong", size, i)
			}
		}
	}
	if refused < len(whole)/(3*4096+100)*9/10 {
		t.Errorf("only %d of the cut images were refused", refused)
	}
}

// TestIgnoreTruncation reads a cut off image as QEMU reads it.
func TestIgnoreTruncation(t *testing.T) {
	built := rig.Chain{Size: 1 << 20, Layers: []rig.Layer{{Options: "cluster_size=4k", Writes: []rig.Write{{Off: 0, Len: 300_032}}}}}.Build(t, t.TempDir())
	if err := os.Truncate(built.Top, 100_000); err != nil {
		t.Fatal(err)
	}
	flat := filepath.Join(built.Dir, "flat")
	rig.Run(t, "qemu-img", "convert", "-O", "raw", built.Top, flat)
	want, err := os.ReadFile(flat)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, built.Size)
	if _, err := open(t, built.Top, layers.Options{IgnoreTruncation: true}).ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the image does not read as QEMU reads it: %v", err)
	}
}

// TestDeepChain checks that a deep chain opens and reads.
func TestDeepChain(t *testing.T) {
	chain := rig.Chain{Size: 1 << 20}
	for i := range int64(64) {
		chain.Layers = append(chain.Layers, rig.Layer{Options: "cluster_size=4k", Writes: []rig.Write{{Off: i * 4096, Len: 8192}}})
	}
	built := chain.Build(t, t.TempDir())
	checkContent(t, open(t, built.Top, layers.Options{}), built.Want, rand.New(rand.NewPCG(2, 2)))
	_, err := layers.Open(built.Top, layers.Options{MaxDepth: 63})
	wantError(t, err, layers.ErrRefused, "more than 63 volumes")
	open(t, built.Top, layers.Options{MaxDepth: 64})
}

// wantError checks that err wraps mark and contains the texts.
func wantError(t *testing.T, err, mark error, texts ...string) {
	t.Helper()
	if !errors.Is(err, mark) {
		t.Errorf("error is %v, want one that wraps %q", err, mark)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

// TestStoredPaths checks which paths stored in an image are followed.
func TestStoredPaths(t *testing.T) {
	rig.Need(t, "qemu-img")
	root := t.TempDir()
	in, out := filepath.Join(root, "in"), filepath.Join(root, "out")
	for _, dir := range []string{in, filepath.Join(in, "sub"), out} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	base := rig.Chain{Name: "base", Size: 1 << 20, Layers: []rig.Layer{{Writes: []rig.Write{{Off: 0, Len: 65536}}}}}
	base.Build(t, out)
	base.Build(t, filepath.Join(in, "sub"))
	link(t, filepath.Join(out, "base.qcow2"), filepath.Join(in, "escape.qcow2"))
	link(t, filepath.Join(in, "sub", "base.qcow2"), filepath.Join(in, "inside.qcow2"))
	link(t, filepath.Join(in, "nowhere.qcow2"), filepath.Join(in, "dangling.qcow2"))
	if out, err := exec.Command("mkfifo", filepath.Join(in, "fifo")).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v: %s", err, out)
	}
	top := filepath.Join(in, "top.qcow2")
	for _, c := range []struct {
		backing string
		mark    error // nil: opens
		text    string
	}{
		{"sub/base.qcow2", nil, ""},
		{"./sub/../sub/base.qcow2", nil, ""},
		{"../in/sub/base.qcow2", nil, ""},
		{filepath.Join(in, "sub/base.qcow2"), nil, ""},
		{"inside.qcow2", nil, ""},
		{"../out/base.qcow2", layers.ErrRefused, "outside the image's directory"},
		{filepath.Join(out, "base.qcow2"), layers.ErrRefused, "outside the image's directory"},
		{"escape.qcow2", layers.ErrRefused, "outside the image's directory"},
		{"/etc/passwd", layers.ErrRefused, "outside the image's directory"},
		{"dangling.qcow2", layers.ErrSource, "does not exist"},
		{"missing.qcow2", layers.ErrSource, "does not exist"},
		{"top.qcow2", layers.ErrSource, "the chain loops"},
		{"sub", layers.ErrSource, "is a directory"},
		{"fifo", layers.ErrSource, "neither a regular file nor a block device"},
		{"json:{\"driver\":\"raw\"}", layers.ErrSource, "protocol (json:)"},
		{"file:sub/base.qcow2", layers.ErrSource, "protocol (file:)"},
		{"nbd://localhost/x", layers.ErrSource, "protocol (nbd:)"},
	} {
		rig.RunIn(t, in, "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", c.backing, "-F", "qcow2", top, "1M")
		im, err := layers.Open(top, layers.Options{})
		if c.mark == nil {
			if err != nil {
				t.Errorf("backing file %q: %v", c.backing, err)
			} else {
				im.Close()
			}
			continue
		}
		if err == nil {
			im.Close()
		}
		wantError(t, err, c.mark, c.text)
		if c.mark == layers.ErrRefused {
			var hinter interface{ Hint() string }
			if !errors.As(err, &hinter) || !strings.Contains(hinter.Hint(), "--allow-dir") {
				t.Errorf("backing file %q: no hint in %v", c.backing, err)
			}
		}
	}
	rig.RunIn(t, in, "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "../out/base.qcow2", "-F", "qcow2", top, "1M")
	open(t, top, layers.Options{AllowDirs: []string{out}})
}

func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name); err != nil {
		t.Fatal(err)
	}
}

// TestFormats checks what is taken for what.
func TestFormats(t *testing.T) {
	rig.Need(t, "qemu-img")
	dir := t.TempDir()
	for _, format := range []string{"vmdk", "vdi", "vpc", "vhdx", "qcow", "qed", "luks", "parallels"} {
		path := filepath.Join(dir, "x."+format)
		args := []string{"create", "-q", "-f", format}
		if format == "luks" {
			args = append(args, "--object", "secret,id=s,data=x", "-o", "key-secret=s,iter-time=10")
		}
		if err := exec.Command("qemu-img", append(args, path, "1M")...).Run(); err != nil {
			t.Logf("qemu-img makes no %s: %v", format, err)
			continue
		}
		_, err := layers.Open(path, layers.Options{})
		wantError(t, err, layers.ErrSource, "not supported", path)
		open(t, path, layers.Options{Format: "raw"})
	}
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("not an image"), 0o600); err != nil {
		t.Fatal(err)
	}
	if im := open(t, text, layers.Options{}); im.Size() != 512 {
		t.Errorf("a raw disk of 12 bytes has size %d", im.Size())
	}
	_, err := layers.Open(text, layers.Options{Format: "qcow2"})
	wantError(t, err, layers.ErrSource, "not a qcow2 image")
	_, err = layers.Open(text, layers.Options{Format: "floppy"})
	wantError(t, err, layers.ErrOptions, "not supported, only qcow2, raw")
	for name, text := range map[string]string{"zeroed.qcow2": "has no header", "empty.img": "is empty"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, make([]byte, 4096*(len(name)-len("empty.img"))), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = layers.Open(path, layers.Options{})
		wantError(t, err, layers.ErrSource, text)
	}
	_, err = layers.Open(filepath.Join(dir, "gone"), layers.Options{})
	wantError(t, err, layers.ErrSource, "no such file")
	_, err = layers.Open(dir, layers.Options{})
	wantError(t, err, layers.ErrSource, "is a directory")

	// What a guest wrote into a raw disk is not probed when the format is
	// recorded.
	rig.RunIn(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "guest.raw", "1M")
	rig.RunIn(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "guest.raw", "-F", "raw", "over.qcow2", "64k")
	im := open(t, filepath.Join(dir, "over.qcow2"), layers.Options{})
	if f := im.Layers()[0].Format(); f != "raw" {
		t.Errorf("a base recorded as raw was opened as %s", f)
	}
}
