package area

import (
	"bytes"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"flatimg/convert"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// fakeTarget is a target made of given segments.
type fakeTarget struct {
	segments []layers.Segment
	// asked is called at the begin of each AppendSegments, if it is set.
	asked func()
}

var _ = (convert.Target)((*fakeTarget)(nil))
var _ = (convert.Sparse)((*fakeTarget)(nil))

func (t *fakeTarget) Size() int64 {
	var size int64
	for _, s := range t.segments {
		size += s.Length
	}
	return size
}

func (t *fakeTarget) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if t.asked != nil {
		t.asked()
	}
	at := int64(0)
	for _, s := range t.segments {
		from, to := max(off, at), min(off+length, at+s.Length)
		if from < to {
			dst = append(dst, s.Slice(from-at, to-at))
		}
		at += s.Length
	}
	return dst, nil
}

func (t *fakeTarget) DataRuns(off int64) iter.Seq2[convert.Run, error] {
	return func(yield func(convert.Run, error) bool) {
		at := int64(0)
		for _, s := range t.segments {
			from, to := max(off, at), at+s.Length
			at = to
			if from < to && s.Origin != layers.Zeros && !yield(convert.Run{Offset: from, Length: to - from}, nil) {
				return
			}
		}
	}
}

func zeroSegment(length int64) layers.Segment { return layers.Segment{Length: length} }

func literal(b []byte) layers.Segment {
	return layers.Segment{Length: int64(len(b)), Origin: layers.Literal, Bytes: b}
}

func inFile(f *volume.File, off, length int64) layers.Segment {
	return layers.Segment{Length: length, Origin: layers.InFile, File: f, Offset: off}
}

// randomBytes returns n bytes, the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// sourceFile makes a file of parts, one after the other; a nil part is a hole of
// holeSize bytes.
func sourceFile(t *testing.T, dir string, parts ...[]byte) *volume.File {
	t.Helper()
	f, err := os.CreateTemp(dir, "source-")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := int64(0)
	for _, p := range parts {
		if p == nil {
			at += holeSize
			continue
		}
		if _, err := f.WriteAt(p, at); err != nil {
			t.Fatal(err)
		}
		at += int64(len(p))
	}
	// Until it is written back, a file system can't say where its holes are.
	if err := f.Truncate(at); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	v, err := volume.OpenFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

const holeSize = 1 << 20

// readTarget returns all bytes of a target.
func readTarget(t *testing.T, target convert.Target) []byte {
	t.Helper()
	b := make([]byte, target.Size())
	if _, err := convert.ReadAt(target, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// newFile returns an empty file in dir.
func newFile(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(dir, "filled-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// checkContent fails the test unless f holds want.
func checkContent(t *testing.T, f *os.File, want []byte) {
	t.Helper()
	got, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(want))+1))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%d bytes, want %d; the first difference is at %#x", len(got), len(want), i)
}

// mounted returns the folder of a fresh file system that is unmounted with the
// test. Without privileges the test is skipped.
func mounted(t *testing.T, args ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "not root: can't mount")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		missing(t, "mount: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

func tmpfs(t *testing.T, size string) string {
	return mounted(t, "-t", "tmpfs", "-o", "size="+size, "tmpfs")
}

// loopMounted makes a file system of size bytes in a file and mounts it.
func loopMounted(t *testing.T, size int64, mkfs string, args ...string) string {
	t.Helper()
	program, err := exec.LookPath(mkfs)
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/" + mkfs)
	}
	if err != nil {
		missing(t, "%s is not installed", mkfs)
	}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, append(args, disk)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", mkfs, err, out)
	}
	return mounted(t, "-o", "loop", disk)
}

func ext4(t *testing.T) string { return loopMounted(t, 256<<20, "mkfs.ext4", "-q", "-F") }

// xfs has the smallest size that mkfs.xfs accepts.
func xfs(t *testing.T) string { return loopMounted(t, 300<<20, "mkfs.xfs", "-q", "-m", "reflink=1") }

func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("FLATIMG_REQUIRE_TOOLS") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}
