package integration

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"flatimg/integration/rig"
)

// TestMountFormats shows a chain in all formats that can be shown and compares
// each view with an export of that name, first in ranges at random and then
// throughout, and by QEMU with the chain.
func TestMountFormats(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	specs := []string{
		"raw", "qcow2", "qcow2,cluster_size=4k,compat=0.10", "vmdk", "vmdk,subformat=monolithicFlat", "vdi", "vdi,subformat=static",
		"vhd", "vhd,force_size=on", "vhd,subformat=fixed", "vhdx", "vhdx,subformat=fixed",
	}
	var args []string
	for _, spec := range specs {
		args = append(args, "--format", spec)
	}
	dir := rig.Mount(t, append(args, im.Top)...)
	out := t.TempDir()
	for _, v := range []struct{ name, spec, qemu string }{
		{"web.raw", "raw", "raw"},
		{"web.qcow2", "qcow2", "qcow2"},
		{"web,cluster_size=4k,compat=0.10.qcow2", "qcow2,cluster_size=4k,compat=0.10", "qcow2"},
		{"web.vmdk", "vmdk", "vmdk"},
		{"web,subformat=monolithicFlat.vmdk", "vmdk,subformat=monolithicFlat", "vmdk"},
		{"web,subformat=monolithicFlat-flat.vmdk", "", "raw"},
		{"web.vdi", "vdi", "vdi"},
		{"web,subformat=static.vdi", "vdi,subformat=static", "vdi"},
		{"web.vhd", "vhd", "vpc"},
		{"web,force_size=on.vhd", "vhd,force_size=on", "vpc"},
		{"web,subformat=fixed.vhd", "vhd,subformat=fixed", "vpc"},
		{"web.vhdx", "vhdx", "vhdx"},
		{"web,subformat=fixed.vhdx", "vhdx,subformat=fixed", "vhdx"},
	} {
		t.Run(v.name, func(t *testing.T) {
			view := filepath.Join(dir, v.name)
			if v.spec != "" { // else it is a companion, which is there already
				rig.MustFlatimg(t, "export", "-q", "--format", v.spec, im.Top, filepath.Join(out, v.name))
			}
			compareRanges(t, view, filepath.Join(out, v.name))
			rig.Compare(t, view, filepath.Join(out, v.name))
			rig.RunIn(t, dir, "qemu-img", "compare", "-q", "-U", "-f", v.qemu, "-F", "qcow2", v.name, im.Top)
		})
	}
}

// compareRanges compares two files in ranges at random: any length, in no order.
func compareRanges(t *testing.T, pathA, pathB string) {
	t.Helper()
	a, b := openFile(t, pathA), openFile(t, pathB)
	fi, err := b.Stat()
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(uint64(fi.Size()), 7))
	for range 100 {
		off := r.Int64N(fi.Size())
		n := min(fi.Size()-off, 1+r.Int64N(1<<(r.IntN(20))))
		bytesA, bytesB := make([]byte, n), make([]byte, n)
		if _, err := a.ReadAt(bytesA, off); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ReadAt(bytesB, off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytesA, bytesB) {
			t.Fatalf("%s and %s differ in [%#x, +%#x)", pathA, pathB, off, n)
		}
	}
}

func openFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
