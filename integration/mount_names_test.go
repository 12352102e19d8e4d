package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flatimg/integration/rig"
)

func TestMountSnapshots(t *testing.T) {
	dir := t.TempDir()
	im := small(t, dir, "web", 1)
	first := im.Want
	rig.Run(t, "qemu-img", "snapshot", "-c", "before", im.Top)
	im.Write(t, rig.Write{Kind: rig.Data, Off: 0, Len: 200_000})
	second := im.Want
	rig.Run(t, "qemu-img", "snapshot", "-c", "a/b", im.Top)
	im.Write(t, rig.Write{Kind: rig.Data, Off: 500_000, Len: 200_000})

	point := rig.Mount(t, "--format", "raw", "--format", "qcow2", dir)
	wantNames(t, point, "web.qcow2", "web.raw", "web@a_b.qcow2", "web@a_b.raw", "web@before.qcow2", "web@before.raw")
	rig.CompareContent(t, filepath.Join(point, "web@before.raw"), first)
	rig.CompareContent(t, filepath.Join(point, "web@a_b.raw"), second)
	rig.CompareContent(t, filepath.Join(point, "web.raw"), im.Want)
	flat := filepath.Join(t.TempDir(), "flat")
	rig.Run(t, "qemu-img", "convert", "-O", "raw", filepath.Join(point, "web@before.qcow2"), flat)
	rig.CompareContent(t, flat, first)
}

// TestMountAllLayers shows each restore point of a chain.
func TestMountAllLayers(t *testing.T) {
	im := layered(t, t.TempDir(), "disk")
	for _, source := range []string{im.Dir, im.Top} {
		point := rig.Mount(t, "--all-layers", source)
		wantNames(t, point, "disk-0.raw", "disk-1.raw", "disk-2.raw", "disk.raw")
		for i, path := range im.Paths {
			rig.CompareContent(t, view(point, path, ".raw"), im.Layers[i])
		}
	}
}

// TestMountNameCollisions has several images that want one name.
func TestMountNameCollisions(t *testing.T) {
	rig.Need(t, "qemu-img")
	a, b := t.TempDir(), t.TempDir()
	for _, path := range []string{
		filepath.Join(a, "web.qcow2"), filepath.Join(a, "web.img"), filepath.Join(a, "db.QCOW2"),
		filepath.Join(a, "vm.snap1"), filepath.Join(b, "db.QCOW2"),
	} {
		rig.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	}
	point := rig.Mount(t, a, b)
	wantNames(t, point, "db.QCOW2~1.raw", "db.QCOW2~2.raw", "vm.snap1.raw", "web.img.raw", "web.qcow2.raw")

	formats := rig.Mount(t, "--format", "qcow2", "--format", "qcow2,cluster_size=2M", filepath.Join(b, "db.QCOW2"))
	wantNames(t, formats, "db,cluster_size=2M.qcow2", "db.qcow2")
}

// TestMountStatus reads what the mount says of itself.
func TestMountStatus(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	m := rig.NewMount(t, im.Dir)
	text, err := os.ReadFile(filepath.Join(m.Point, ".flatimg", "status"))
	if err != nil {
		t.Fatal(err)
	}
	var status struct {
		PID        int      `json:"pid"`
		Mountpoint string   `json:"mountpoint"`
		Sources    []string `json:"sources"`
		Views      []struct {
			Name, Format string
			Size         int64
			Chain        []struct{ Path, Format string }
		} `json:"views"`
		Errors []any `json:"errors"`
	}
	if err := json.Unmarshal(text, &status); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if status.PID != m.PID || status.Mountpoint != m.Point || !slices.Equal(status.Sources, []string{im.Dir}) {
		t.Errorf("server is %d on %s\n%s", m.PID, m.Point, text)
	}
	if len(status.Errors) != 0 || len(status.Views) != 1 {
		t.Fatalf("%s", text)
	}
	v := status.Views[0]
	if v.Name != "disk.raw" || v.Format != "raw" || v.Size != im.Size || len(v.Chain) != len(im.Paths) {
		t.Errorf("%s", text)
	}
	for i, l := range v.Chain {
		if l.Path != im.Paths[i] || l.Format != "qcow2" {
			t.Errorf("layer %d is %+v", i, l)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(m.Point, ".flatimg")); err != nil || len(entries) != 3 {
		t.Errorf("control directory: %v, %v", entries, err)
	}
}
