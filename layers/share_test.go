package layers_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// twoLayers builds a base and a top over it.
func twoLayers(t *testing.T) *rig.Image {
	return rig.Chain{Size: 1 << 20, Layers: []rig.Layer{
		{Writes: []rig.Write{{Off: 0, Len: 65536}}},
		{Writes: []rig.Write{{Off: 65536, Len: 65536}}},
	}}.Build(t, t.TempDir())
}

// TestQEMURespectsUs: while an image is open nobody writes to any layer of it,
// and everybody may read it. Afterwards all is as before.
func TestQEMURespectsUs(t *testing.T) {
	built := twoLayers(t)
	im, err := layers.Open(built.Top, layers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	again, err := layers.Open(built.Top, layers.Options{})
	if err != nil {
		t.Fatalf("we keep ourselves from reading: %v", err)
	}
	again.Close()
	write := func(path string) error {
		out, err := exec.Command("qemu-io", "-f", "qcow2", "-c", "write -q 0 512", path).CombinedOutput()
		if err != nil && !strings.Contains(string(out), `Failed to get "write" lock`) {
			t.Errorf("qemu-io fails otherwise than by the lock: %s", out)
		}
		return err
	}
	commit := func() error { return exec.Command("qemu-img", "commit", "-q", built.Top).Run() }
	for _, path := range built.Paths {
		if write(path) == nil {
			t.Errorf("QEMU writes to %s while it is open", path)
		}
		rig.Run(t, "qemu-img", "info", path)
		rig.Run(t, "qemu-img", "map", path)
	}
	if commit() == nil {
		t.Error("QEMU commits while the chain is open")
	}
	if err := im.Close(); err != nil {
		t.Fatal(err)
	}
	if err := write(built.Top); err != nil {
		t.Errorf("after Close QEMU can't write: %v", err)
	}
	if err := commit(); err != nil {
		t.Errorf("after Close QEMU can't commit: %v", err)
	}
}

// TestWeRespectQEMU: an image that is being written is refused, unless sharing
// is forced; the base below it can be read.
func TestWeRespectQEMU(t *testing.T) {
	built := twoLayers(t)
	started := filepath.Join(built.Dir, "pid")
	daemon := rig.Start(t, rig.Command(rig.Need(t, "qemu-storage-daemon"), "--pidfile", started,
		"--blockdev", "driver=file,node-name=f,filename="+built.Top,
		"--blockdev", "driver=qcow2,node-name=q,file=f",
		"--nbd-server", "addr.type=unix,addr.path="+filepath.Join(built.Dir, "socket"),
		"--export", "type=nbd,id=e,node-name=q,writable=on"))
	inUse := func() bool {
		// Without keeping the daemon from starting.
		im, err := layers.Open(built.Top, layers.Options{Peek: true})
		if err == nil {
			im.Close()
			return false
		}
		wantError(t, err, layers.ErrRefused, built.Top, "in use by another process")
		var hinter interface{ Hint() string }
		if !errors.As(err, &hinter) || !strings.Contains(hinter.Hint(), "--force-share") {
			t.Errorf("no hint in %v", err)
		}
		return errors.Is(err, volume.ErrInUse)
	}
	// It writes its process ID when it has made its export. Sooner, while it
	// takes its locks, opening the image could keep it from that.
	rig.Eventually(t, time.Minute, "the daemon has started", func() bool {
		_, err := os.Stat(started)
		return err == nil || !daemon.Running()
	})
	if !inUse() {
		t.Fatal("the image that the daemon has open for writing is not in use")
	}

	_, err := layers.Open(built.Top, layers.Options{})
	wantError(t, err, layers.ErrRefused, "in use")
	im := open(t, built.Top, layers.Options{ForceShare: true})
	if l := im.Layers(); l[0].HasWriter || !l[1].HasWriter {
		t.Errorf("writers: %v, %v; want only the top to have one", l[0].HasWriter, l[1].HasWriter)
	}
	open(t, built.Paths[0], layers.Options{})
	if _, err := layers.Probe(built.Top, layers.Options{}); err != nil {
		t.Errorf("probing needs no lock, but fails: %v", err)
	}
	daemon.Signal(syscall.SIGTERM)
	daemon.Wait(t, time.Minute)
	rig.Eventually(t, time.Minute, "the image is free", func() bool { return !inUse() })
}

// TestRelocate opens chains whose recorded backing file is not where it was.
func TestRelocate(t *testing.T) {
	built := twoLayers(t)
	moved := t.TempDir()
	base := filepath.Join(moved, filepath.Base(built.Paths[0]))
	rig.Run(t, "mv", built.Paths[0], base)

	_, err := layers.Open(built.Top, layers.Options{})
	wantError(t, err, layers.ErrSource, "does not exist", built.Paths[0])
	var hinter interface{ Hint() string }
	if !errors.As(err, &hinter) || !strings.Contains(hinter.Hint(), "--parent "+built.Paths[0]+"=") {
		t.Errorf("no hint in %v", err)
	}
	for name, opts := range map[string]layers.Options{
		"stored name":   {Parents: map[string]string{filepath.Base(built.Paths[0]): base}},
		"resolved path": {Parents: map[string]string{built.Paths[0]: base}},
		"search":        {SearchDirs: []string{t.TempDir(), moved}},
	} {
		t.Run(name, func(t *testing.T) {
			im := open(t, built.Top, opts)
			p := make([]byte, built.Size)
			if _, err := im.ReadAt(p, 0); err != nil || string(p) != string(built.Want.Bytes(0, built.Size)) {
				t.Errorf("reads other bytes: %v", err)
			}
		})
	}
	// A base of another format than the one that the top records.
	raw := filepath.Join(moved, "base.raw")
	rig.Run(t, "qemu-img", "convert", "-f", formatOf(base), "-O", "raw", base, raw)
	parents := map[string]string{built.Paths[0]: raw}
	_, err = layers.Open(built.Top, layers.Options{Parents: parents})
	wantError(t, err, layers.ErrSource, "not a qcow2 image")
	for _, format := range []string{"raw", ""} {
		im := open(t, built.Top, layers.Options{Parents: parents, ParentFormats: map[string]string{raw: format}})
		p := make([]byte, built.Size)
		if _, err := im.ReadAt(p, 0); err != nil || string(p) != string(built.Want.Bytes(0, built.Size)) {
			t.Errorf("format %q: reads other bytes: %v", format, err)
		}
	}
	_, err = layers.Open(built.Top, layers.Options{SearchDirs: []string{t.TempDir()}})
	wantError(t, err, layers.ErrSource, "does not exist")
	_, err = layers.Open(built.Top, layers.Options{Parents: map[string]string{built.Paths[0]: filepath.Join(moved, "none")}})
	wantError(t, err, layers.ErrSource, "no such file")
}
