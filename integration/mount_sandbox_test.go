package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"flatimg/integration/rig"
)

// TestMountSandbox: a sandboxed server serves what it was mounted for, follows
// changes of its folder, opens nothing else, and ends by a signal.
func TestMountSandbox(t *testing.T) {
	rig.NeedLandlock(t)
	dir, elsewhere, secret := t.TempDir(), t.TempDir(), t.TempDir()
	im := small(t, dir, "disk", 1)
	outside := small(t, secret, "secret", 2)
	// An image whose base is in another folder, by a flag.
	apart := small(t, elsewhere, "apart", 3)
	top := filepath.Join(dir, "apart.qcow2")
	if err := os.Rename(apart.Top, top); err != nil {
		t.Fatal(err)
	}
	rig.Run(t, "qemu-img", "rebase", "-u", "-b", apart.Paths[0], "-F", "qcow2", top)
	// And a link out of the folder, which is followed without a sandbox.
	if err := os.Symlink(outside.Paths[0], filepath.Join(dir, "linked.qcow2")); err != nil {
		t.Fatal(err)
	}
	free := rig.Mount(t, "--allow-dir", elsewhere, dir)
	wantNames(t, free, "apart.raw", "disk.raw", "linked.raw")
	rig.CompareContent(t, filepath.Join(free, "linked.raw"), outside.Layers[0])

	m := rig.NewMount(t, "--sandbox", "--allow-dir", elsewhere, dir)
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(m.PID), "status"))
	if err != nil || !strings.Contains(string(status), "NoNewPrivs:\t1") {
		t.Errorf("%v in\n%s", err, status)
	}
	rig.CompareContent(t, view(m.Point, im.Top, ".raw"), im.Want)
	rig.CompareContent(t, filepath.Join(m.Point, "apart.raw"), apart.Want)

	late := appear(t, dir, "late", 4)
	rig.CompareContent(t, view(m.Point, late.Top, ".raw"), late.Want)
	replacement := small(t, t.TempDir(), "disk", 5)
	for i, path := range replacement.Paths {
		if err := os.Rename(path, im.Paths[i]); err != nil {
			t.Fatal(err)
		}
	}
	rig.CompareContent(t, view(m.Point, im.Top, ".raw"), replacement.Want)

	// What was there when it was mounted was seen before the sandbox, and has
	// a name. A link that appears has none.
	if text, err := os.ReadFile(filepath.Join(m.Point, "linked.raw")); err == nil {
		t.Errorf("%d bytes of a file outside can be read", len(text))
	}
	if err := os.Symlink(outside.Paths[0], filepath.Join(dir, "base.qcow2")); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(names(t, m.Point), "base.raw") {
		t.Error("a file outside is shown")
	}
	rig.Eventually(t, soon, "the link to a file outside is an error", func() bool {
		return strings.Contains(listed(t, m.Point), "base.qcow2: permission denied")
	})

	if err := syscall.Kill(m.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, soon, "it ends by a signal", func() bool {
		return len(rig.Servers(t, m.Point)) == 0 && !rig.IsMounted(t, m.Point)
	})
}

// TestMountSandboxBusy ends a sandboxed server by a signal while a view is open.
func TestMountSandboxBusy(t *testing.T) {
	rig.NeedLandlock(t)
	if testing.Short() {
		t.Skip("it waits for the server to lose patience")
	}
	im := small(t, t.TempDir(), "disk", 1)
	point := t.TempDir()
	server := rig.StartFlatimg(t, "mount", "--foreground", "--sandbox", im.Top, point)
	path := view(point, im.Top, ".raw")
	rig.Eventually(t, soon, "mounted", func() bool {
		_, err := os.Stat(path)
		return err == nil
	})
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	server.Signal(syscall.SIGINT)
	if code := server.Wait(t, soon); code != 0 || rig.IsMounted(t, point) {
		t.Errorf("exit code %d, mounted: %v\n%s", code, rig.IsMounted(t, point), server.Output())
	}
}
