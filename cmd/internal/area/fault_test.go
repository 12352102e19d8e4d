package area

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// faultyOutput fails at one kind of operation, at the first that begins at or
// after an offset.
type faultyOutput struct {
	outputFile
	op   string
	from int64
	err  error
	hit  atomic.Bool
}

func (o *faultyOutput) fault(op string, at int64) error {
	if op != o.op || at < o.from {
		return nil
	}
	o.hit.Store(true)
	return &os.PathError{Op: op, Path: o.Name(), Err: o.err}
}

func (o *faultyOutput) WriteAt(p []byte, at int64) (int, error) {
	if err := o.fault("write", at); err != nil {
		n, _ := o.outputFile.WriteAt(p[:len(p)/2], at) // as a disk that runs full does
		return n, err
	}
	return o.outputFile.WriteAt(p, at)
}

func (o *faultyOutput) Truncate(size int64) error {
	if err := o.fault("truncate", size); err != nil {
		return err
	}
	return o.outputFile.Truncate(size)
}

func (o *faultyOutput) clone(at int64, from *volume.File, off, length int64) error {
	if err := o.fault("clone", at); err != nil {
		return err
	}
	return o.outputFile.clone(at, from, off, length)
}

func (o *faultyOutput) copyRange(at int64, from *volume.File, off, length int64) error {
	if err := o.fault("copy range", at); err != nil {
		return err
	}
	return o.outputFile.copyRange(at, from, off, length)
}

func (o *faultyOutput) flush(ctx context.Context, size int64) error {
	if err := o.fault("flush", 0); err != nil {
		return err
	}
	return o.outputFile.flush(ctx, size)
}

// TestFillFaults lets each operation on the destination fail. What means "not
// this way" is done in another way, all else is an error that tells the file.
func TestFillFaults(t *testing.T) {
	dir := ext4(t)
	target := mixedTarget(t, dir)
	want := readTarget(t, target)
	for _, op := range []string{"write", "truncate", "clone", "copy range", "flush"} {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EINVAL, syscall.EXDEV} {
			t.Run(op+" "+errno.Error(), func(t *testing.T) {
				file := newFile(t, dir)
				out := &faultyOutput{outputFile: outputFile{file}, op: op, err: errno}
				if op == "write" || op == "clone" {
					out.from = 64 * k
				}
				_, err := (&filler{target: target, file: file, out: out}).fill(t.Context())
				goesOn := (op == "copy range" || op == "clone") && notThisWay(errno)
				switch {
				case op == "clone" && err == nil:
					// ext4 can't clone, so that there is nothing to fail after
					// the first try.
					checkContent(t, file, want)
				case !out.hit.Load():
					t.Error("the test did not make it fail")
				case goesOn && err != nil:
					t.Errorf("no other way is tried: %v", err)
				case goesOn:
					checkContent(t, file, want)
				case !errors.Is(err, errno):
					t.Errorf("got %v, want %v", err, errno)
				case !strings.Contains(err.Error(), file.Name()):
					t.Errorf("%v does not name the file", err)
				}
			})
		}
	}
}

// TestCloneFaults is the same where files can share blocks.
func TestCloneFaults(t *testing.T) {
	dir := xfs(t)
	target := mixedTarget(t, dir)
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EXDEV} {
		file := newFile(t, dir)
		out := &faultyOutput{outputFile: outputFile{file}, op: "clone", from: 256 * k, err: errno}
		_, err := (&filler{target: target, file: file, out: out}).fill(t.Context())
		switch {
		case !out.hit.Load():
			t.Error("nothing was cloned")
		case notThisWay(errno) && err == nil:
			checkContent(t, file, readTarget(t, target))
		case !errors.Is(err, errno):
			t.Errorf("got %v, want %v", err, errno)
		}
	}
}

// brokenSource fails at one read.
type brokenSource struct {
	*os.File
	reads *atomic.Int64
	at    int64
}

func (s brokenSource) ReadAt(p []byte, off int64) (int, error) {
	if s.reads.Add(1) == s.at {
		return 0, syscall.EIO
	}
	return s.File.ReadAt(p, off)
}

// TestExportSourceFaults lets each read of the source fail. Nothing is left
// behind, in the area and at the destination.
func TestExportSourceFaults(t *testing.T) {
	image := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(image, randomBytes(20, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	other := tmpfs(t, "16m") // where nothing can be copied inside the kernel
	for _, inArea := range []bool{false, true} {
		for _, format := range []string{"raw", "qcow2"} {
			for at := int64(1); ; at++ {
				dest, area := filepath.Join(other, "dest"), ""
				if inArea {
					dest, area = filepath.Join(t.TempDir(), "dest"), filepath.Join(other, "area")
				}
				for _, dir := range []string{dest, filepath.Join(other, "area")} {
					if err := os.MkdirAll(dir, 0o700); err != nil {
						t.Fatal(err)
					}
				}
				var reads atomic.Int64
				wrap := func(f *os.File) volume.Source { return brokenSource{f, &reads, at} }
				_, err := Export(t.Context(), Options{
					Image: image, Open: layers.Options{Wrap: wrap}, Dest: dest + "/", Area: area, Format: format,
				})
				if reads.Load() < at {
					if err != nil || at < 4 {
						t.Errorf("in an area %v: %v after %d reads", inArea, err, reads.Load())
					}
					os.RemoveAll(dest)
					break
				}
				if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), image) || cli.ExitCode(err) != cli.ExitSource {
					t.Errorf("in an area %v, read %d: %v, exit code %d", inArea, at, err, cli.ExitCode(err))
				}
				for _, dir := range []string{dest, filepath.Join(other, "area")} {
					if left, _ := os.ReadDir(dir); len(left) > 0 {
						t.Errorf("in an area %v, read %d: %v is left in %s", inArea, at, left, dir)
					}
				}
			}
		}
	}
}

// TestJobIsPrivate: others can't read what is on its way.
func TestJobIsPrivate(t *testing.T) {
	j, err := newJob(t.TempDir(), Request{Image: "/disk.qcow2", URL: "x://y"}, "state", access{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.remove()
	f, err := j.create("disk.raw")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for path, want := range map[string]os.FileMode{j.dir: os.ModeDir | 0o700, f.Name(): 0o600, j.path(recordName): 0o600} {
		if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, fi.Mode(), err, want)
		}
	}
}
