package integration

import (
	"path/filepath"
	"testing"

	"flatimg/integration/rig"
)

// TestMountFormats shows a chain in all formats that can be shown and compares
// each view, by QEMU with the chain and by byte with an export of that name.
func TestMountFormats(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	specs := []string{
		"raw", "qcow2", "vmdk", "vmdk,subformat=monolithicFlat", "vdi", "vdi,subformat=static", "vhd", "vhd,subformat=fixed", "vhdx",
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
		{"web.vmdk", "vmdk", "vmdk"},
		{"web,subformat=monolithicFlat.vmdk", "vmdk,subformat=monolithicFlat", "vmdk"},
		{"web,subformat=monolithicFlat-flat.vmdk", "", "raw"},
		{"web.vdi", "vdi", "vdi"},
		{"web,subformat=static.vdi", "vdi,subformat=static", "vdi"},
		{"web.vhd", "vhd", "vpc"},
		{"web,subformat=fixed.vhd", "vhd,subformat=fixed", "vpc"},
		{"web.vhdx", "vhdx", "vhdx"},
	} {
		t.Run(v.name, func(t *testing.T) {
			view := filepath.Join(dir, v.name)
			rig.RunIn(t, dir, "qemu-img", "compare", "-q", "-U", "-f", v.qemu, "-F", "qcow2", v.name, im.Top)
			if v.spec != "" {
				rig.MustFlatimg(t, "export", "-q", "--format", v.spec, im.Top, filepath.Join(out, v.name))
			}
			rig.Compare(t, view, filepath.Join(out, v.name))
		})
	}
}
