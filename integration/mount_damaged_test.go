package integration

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"flatimg/integration/rig"
)

// TestMountDamagedMap shows an image with one L2 entry that can't be: it is
// listed, all else of it is read, and only the damaged part is an error.
func TestMountDamagedMap(t *testing.T) {
	rig.NeedFUSE(t)
	dir := t.TempDir()
	h := newHostile()
	h.u64(2*hostileCluster+8, 3*hostileCluster|512) // cluster 1: not aligned
	path := filepath.Join(dir, "damaged.qcow2")
	if err := os.WriteFile(path, h, 0o600); err != nil {
		t.Fatal(err)
	}
	point := rig.Mount(t, path)
	view := filepath.Join(point, "damaged.raw")
	fi, err := os.Stat(view)
	if err != nil || fi.Size() != 16<<20 {
		t.Fatalf("stat: %v, %v", fi, err)
	}
	f, err := os.Open(view)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, 4096)
	if _, err := f.ReadAt(p, 0); err != nil || !strings.HasPrefix(string(p), "the guest's own bytes") {
		t.Errorf("before the damage: %q, %v", p[:20], err)
	}
	if _, err := f.ReadAt(p, 8<<20); err != nil {
		t.Errorf("behind the damage: %v", err)
	}
	if _, err := f.ReadAt(p, hostileCluster); !errors.Is(err, syscall.EIO) {
		t.Errorf("in the damage: %v, want EIO", err)
	}
	listed, err := os.ReadFile(filepath.Join(point, ".flatimg", "errors"))
	if err != nil || !strings.Contains(string(listed), "corrupt L2 entry 1") {
		t.Errorf("errors has %q, %v", listed, err)
	}
	// Nothing of a target that needs the whole map is shown.
	out := filepath.Join(dir, "out.qcow2")
	r := rig.Flatimg(t, "export", "--quiet", path, out)
	if _, err := os.Stat(out); r.Code != 3 || err == nil || !strings.Contains(r.Stderr, "qemu-img check") {
		t.Errorf("export: exit code %d, %s", r.Code, r.Stderr)
	}
}
