package convert

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// libvmdk knows VMDK from elsewhere than QEMU.
func TestLibvmdkReadsVMDK(t *testing.T) {
	t.Parallel() // it mostly waits for programs
	tool(t, "vmdkmount")
	tool(t, "qemu-img")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE")
	}
	disks := smallDisks()[1:]
	if testing.Short() {
		disks = disks[len(disks)-2:]
	}
	for _, subformat := range []string{vmdkSparseType, vmdkFlatType, vmdkStreamType} {
		for _, d := range disks {
			t.Run(subformat+"/"+d.name, func(t *testing.T) {
				dir := t.TempDir()
				src := mixed{d.disk}
				size := vmdkDiskSize(d.disk.size)
				writeFile(t, filepath.Join(dir, "disk.raw"), src.read(0, size))
				spec := "vmdk,subformat=" + subformat
				if subformat == vmdkStreamType {
					writeFile(t, filepath.Join(dir, "disk.vmdk"), pack(t, src, spec))
				} else {
					target := build(t, src, spec)
					store(t, target, filepath.Join(dir, "disk.vmdk"))
					for _, c := range Companions(target) {
						store(t, c.Target, filepath.Join(dir, "disk"+c.Suffix))
					}
				}
				if out, want := run(t, dir, "vmdkinfo", "disk.vmdk"), fmt.Sprintf("%d bytes", size); !strings.Contains(out, want) {
					t.Fatalf("not %s:\n%s", want, out)
				}
				if subformat == vmdkFlatType {
					return // which vmdkmount does not know
				}
				mount := filepath.Join(dir, "mount")
				if err := os.Mkdir(mount, 0o700); err != nil {
					t.Fatal(err)
				}
				run(t, dir, "vmdkmount", "disk.vmdk", mount)
				t.Cleanup(func() { run(t, dir, "umount", mount) })
				run(t, dir, "qemu-img", "compare", "-f", "raw", "-F", "raw", filepath.Join(mount, "vmdk1"), "disk.raw")
			})
		}
	}
}
