package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// startWriter starts a daemon that has the image open as a running machine has,
// with an NBD export through which others can write, whose socket it returns.
func startWriter(t *testing.T, image string) (daemon *rig.Process, socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "nbd")
	daemon = rig.Start(t, rig.Command(rig.Need(t, "qemu-storage-daemon"),
		"--blockdev", "driver=file,node-name=f,filename="+image,
		"--blockdev", "driver=qcow2,node-name=q,file=f",
		"--nbd-server", "addr.type=unix,addr.path="+socket,
		"--export", "type=nbd,id=e,name=disk,node-name=q,writable=on"))
	rig.Eventually(t, soon, "the daemon exports the image", func() bool {
		return exec.Command("qemu-img", "info", "nbd+unix:///disk?socket="+socket).Run() == nil
	})
	return daemon, socket
}

// writeNBD writes 64 KiB of bytes b at offset off.
func writeNBD(t *testing.T, socket string, off string, b string) {
	t.Helper()
	rig.Run(t, "qemu-io", "-f", "raw", "-c", "write -P "+b+" "+off+" 64k", "-c", "flush", "nbd+unix:///disk?socket="+socket)
}

// TestMountRefusesRunningMachine mounts an image that is being written, alone
// and in a folder.
func TestMountRefusesRunningMachine(t *testing.T) {
	dir := t.TempDir()
	im, other := small(t, dir, "disk", 1), small(t, dir, "other", 2)
	daemon, _ := startWriter(t, im.Top)
	for _, mode := range []string{"--foreground", "--foreground=false"} {
		r := rig.Flatimg(t, "mount", mode, im.Top, t.TempDir())
		if r.Code != 4 || !strings.Contains(r.Stderr, im.Top+": in use") || !strings.Contains(r.Stderr, "--force-share") {
			t.Errorf("%s: exit code %d\n%s", mode, r.Code, r.Stderr)
		}
	}
	point := rig.Mount(t, dir)
	wantNames(t, point, "other.raw")
	if text := listed(t, point); !strings.HasPrefix(text, im.Top+": in use") {
		t.Errorf("errors are\n%s", text)
	}
	rig.CompareContent(t, view(point, other.Top, ".raw"), other.Want)

	// What the machine is based on nobody writes to.
	rig.CompareContent(t, view(rig.Mount(t, im.Paths[0]), im.Paths[0], ".raw"), im.Layers[0])

	daemon.Signal(syscall.SIGTERM)
	daemon.Wait(t, soon)
	rig.Eventually(t, soon, "the image is shown when the machine has ended", func() bool {
		return len(names(t, point)) == 2
	})
	rig.CompareContent(t, view(point, im.Top, ".raw"), im.Want)
	if text := listed(t, point); text != "" {
		t.Errorf("errors are\n%s", text)
	}
}

// TestMountKeepsWritersAway: nobody writes to what has an open view. While no
// view is open the mount is in nobody's way.
func TestMountKeepsWritersAway(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	point := rig.Mount(t, im.Dir)
	write := func(path string) error {
		return exec.Command("qemu-io", "-f", "qcow2", "-c", "write -q 0 512", path).Run()
	}
	commit := func() error { return exec.Command("qemu-img", "commit", "-q", im.Top).Run() }

	f, err := os.Open(view(point, im.Top, ".raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, path := range im.Paths {
		if write(path) == nil {
			t.Errorf("QEMU writes to %s while a view of it is open", path)
		}
	}
	if commit() == nil {
		t.Error("QEMU commits while a view is open")
	}
	rig.Run(t, "qemu-img", "convert", "-O", "raw", im.Top, filepath.Join(t.TempDir(), "copy"))
	f.Close()
	rig.Eventually(t, soon, "QEMU may write when the view is closed", func() bool { return write(im.Top) == nil })
	rig.MustFlatimg(t, "unmount", point)
	if err := commit(); err != nil {
		t.Errorf("after unmount QEMU can't commit: %v", err)
	}
}

// TestMountLeavesStartsAlone: images in a mounted folder are examined in
// passing, which must not be in the way of a machine that starts.
func TestMountLeavesStartsAlone(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	point := rig.Mount(t, im.Dir)
	for i := range 40 {
		// Each write makes the mount look again, at once by the listing.
		rig.Run(t, "qemu-io", "-f", "qcow2", "-c", "write -q 0 512", im.Top)
		if i%2 == 0 {
			// A look in the middle of the write has found it in use.
			rig.Eventually(t, soon, "the image is shown", func() bool { return len(names(t, point)) == 1 })
		}
	}
}

// statusOf returns .flatimg/status.
func statusOf(t *testing.T, point string) (s mountStatus) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(point, ".flatimg", "status"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return s
}

// mountStatus is what a mount tells about itself.
type mountStatus struct {
	PID   int
	Views []struct {
		Name  string
		Open  bool
		Chain []struct {
			Path, Format string
			Writer       bool
		}
		Map, Clusters statusCache
		Reads         int64
		BytesRead     int64 `json:"bytes-read"`
		Errors        int64
		LastError     string `json:"last-error"`
	}
	Errors     []struct{ Path, Error string }
	Cache      struct{ Map, Clusters statusCache }
	Goroutines int
}

type statusCache struct{ Hits, Misses, Entries, Bytes int64 }

// TestMountForceShare shows an image that is being written.
func TestMountForceShare(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	daemon, socket := startWriter(t, im.Top)
	m := rig.NewMount(t, "--force-share", im.Dir)
	path := view(m.Point, im.Top, ".raw")

	text, _ := os.ReadFile(m.Log)
	if !strings.Contains(string(text), "another process writes") || !strings.Contains(string(text), "layer="+im.Top) {
		t.Errorf("the log does not say so:\n%s", text)
	}
	chain := statusOf(t, m.Point).Views[0].Chain
	if chain[0].Writer || !chain[1].Writer {
		t.Errorf("status says of the chain %+v, want a writer in the top only", chain)
	}
	if out := rig.MustFlatimg(t, "info", "-U", im.Top); strings.Count(out, "in use by a writer") != 1 {
		t.Errorf("info says\n%s", out)
	}
	var asQEMU []map[string]any
	if err := json.Unmarshal([]byte(rig.MustFlatimg(t, "info", "-U", "--json", im.Top)), &asQEMU); err != nil || len(asQEMU) != 2 {
		t.Errorf("%v, %v", asQEMU, err)
	}

	// The layer may change under a reader who was told.
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := func() string {
		b := make([]byte, 4096)
		if _, err := f.ReadAt(b, 512<<10); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	read()
	writeNBD(t, socket, "0", "0xab")
	time.Sleep(1500 * time.Millisecond) // more than one look at the sources
	read()
	f.Close()

	// Who opens it later sees what is there then.
	rig.Eventually(t, soon, "a new reader sees the new bytes", func() bool {
		b, err := os.ReadFile(path)
		return err == nil && b[0] == 0xab && b[65535] == 0xab
	})
	if text := listed(t, m.Point); text != "" {
		t.Errorf("errors are\n%s", text)
	}

	// With the writer its freedom ends.
	daemon.Signal(syscall.SIGTERM)
	daemon.Wait(t, soon)
	rig.Eventually(t, soon, "the mount notices that the writer has gone", func() bool {
		return !statusOf(t, m.Point).Views[0].Chain[1].Writer
	})
}
