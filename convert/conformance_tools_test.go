package convert

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"flatimg/layers"
)

// checkWithQemuAs has QEMU check what is stored at path, a disk of size bytes. It
// has no check for VHD.
func checkWithQemuAs(t *testing.T, dir, path, qemu string, size int64) {
	t.Helper()
	if qemu != "vpc" {
		out := run(t, dir, "qemu-img", "check", "--output=json", "-f", qemu, path)
		var check struct {
			Leaks       int `json:"leaks"`
			Corruptions int `json:"corruptions"`
			Errors      int `json:"check-errors"`
		}
		if err := json.Unmarshal([]byte(out), &check); err != nil {
			t.Fatal(err)
		}
		if check.Leaks+check.Corruptions+check.Errors > 0 {
			t.Fatalf("qemu-img check says:\n%s", out)
		}
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal([]byte(run(t, dir, "qemu-img", "info", "--output=json", "-f", qemu, path)), &info); err != nil {
		t.Fatal(err)
	}
	if info.Size != size {
		t.Fatalf("QEMU sees a disk of %d bytes, we say %d", info.Size, size)
	}
}

// compareAll has QEMU compare what is stored at path with an image of the disk.
// What the one is longer than the other must be zeros.
func compareAll(t *testing.T, dir, path, qemu, image, format string) {
	t.Helper()
	run(t, dir, "qemu-img", "compare", "-f", qemu, "-F", format, path, image)
}

// compareSome compares 1 MiB at each end of some runs of data. QEMU would read
// all of a large VHDX, since it does not ask it for holes.
func compareSome(t *testing.T, dir, path, qemu string, d *disk) {
	t.Helper()
	runs := d.dataRuns()
	for i := 0; i < len(runs); i += 1 + len(runs)/2 {
		for _, at := range []int64{runs[i].Offset, runs[i].Offset + runs[i].Length} {
			start := min(max(0, at-miB/2)&^(miB/2-1), d.size-miB)
			window := fmt.Sprintf("driver=raw,offset=%d,size=%d,file.driver=", start, miB)
			run(t, dir, "qemu-img", "compare", "--image-opts", window+qemu+",file.file.driver=file,file.file.filename="+path, window+"file,file.filename=disk.raw")
		}
	}
}

func TestQemuReadsBlockTargets(t *testing.T) {
	t.Parallel() // it mostly waits for programs
	tool(t, "qemu-img")
	disks := smallDisks()
	if !testing.Short() {
		disks = append(disks, largeDisks()[:3]...) // those that ext4 holds, without the slow one
	}
	for _, d := range disks {
		t.Run(d.name, func(t *testing.T) {
			dir := t.TempDir()
			store(t, build(t, d.disk, "raw"), filepath.Join(dir, "disk.raw"))
			for _, c := range blockTargets {
				if d.disk.size > c.most {
					continue
				}
				target := build(t, d.disk, c.spec)
				path := filepath.Join(dir, "target"+c.qemu)
				store(t, target, path)
				checkWithQemuAs(t, dir, path, c.qemu, GuestSize(target))
				if d.disk.size < giB {
					compareAll(t, dir, path, c.qemu, "disk.raw", "raw")
				} else {
					compareSome(t, dir, path, c.qemu, d.disk)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// QEMU rounds the size of a VHD up to a geometry as we do.
func TestVHDSizesAsQemuMakesThem(t *testing.T) {
	tool(t, "qemu-img")
	dir := t.TempDir()
	for _, sectors := range []int64{
		1, 67, 68, 69, 1000, 4*17*1024 - 1, 4 * 17 * 1024, 4*17*1024 + 1, 16*17*1024 - 1, 16*17*1024 + 7, 16*31*1024 - 9, 16*31*1024 + 1,
		8 << 20, 65535*16*63 - 1, 65535 * 16 * 63, 65535*16*63 + 1, 100 << 21, vhdMaxGeometry - 16*255, vhdMaxGeometry - 1, vhdMaxGeometry,
		vhdMaxGeometry + 1, 1 << 31, 2040 << 21,
	} {
		run(t, dir, "qemu-img", "create", "-q", "-f", "vpc", "x.vhd", strconv.FormatInt(sectors*512, 10))
		var info struct {
			Size int64 `json:"virtual-size"`
		}
		if err := json.Unmarshal([]byte(run(t, dir, "qemu-img", "info", "--output=json", "-f", "vpc", "x.vhd")), &info); err != nil {
			t.Fatal(err)
		}
		if size := GuestSize(build(t, newDisk(sectors*512), "vhd")); size != info.Size {
			t.Errorf("%d sectors become %d, those of QEMU %d", sectors, size/512, info.Size/512)
		}
	}
}

// TestBlockTargetChains lays out chains of real images and has QEMU compare the
// result with what it makes of the chain itself.
func TestBlockTargetChains(t *testing.T) {
	t.Parallel() // it mostly waits for programs
	tool(t, "qemu-img")
	tool(t, "qemu-io")
	chains := chains
	if testing.Short() {
		chains = chains[:2]
	}
	for _, chain := range chains {
		t.Run(chain.name, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, "sh", "-ec", chain.commands)
			format := "raw"
			if strings.HasSuffix(chain.top, ".qcow2") {
				format = "qcow2"
			}
			im, err := layers.Open(filepath.Join(dir, chain.top), layers.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer im.Close()
			for _, c := range blockTargets {
				target := build(t, im, c.spec)
				path := filepath.Join(dir, "target")
				store(t, target, path)
				checkWithQemuAs(t, dir, path, c.qemu, GuestSize(target))
				if im.Size() < giB {
					compareAll(t, dir, path, c.qemu, chain.top, format)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// libvhdi knows VHD and VHDX from elsewhere than QEMU.
func TestLibvhdiReadsBlockTargets(t *testing.T) {
	t.Parallel() // it mostly waits for programs
	tool(t, "qemu-img")
	tool(t, "vhdimount")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("no FUSE")
	}
	disks := smallDisks()
	disks = append(disks[1:2], disks[len(disks)-5:]...)
	if testing.Short() {
		disks = disks[len(disks)-2:]
	}
	for _, c := range blockTargets {
		if c.qemu == "vdi" || c.qemu == "vmdk" {
			continue
		}
		for _, d := range disks {
			t.Run(c.spec+"/"+d.name, func(t *testing.T) {
				dir := t.TempDir()
				store(t, build(t, d.disk, "raw"), filepath.Join(dir, "disk.raw"))
				target := build(t, d.disk, c.spec)
				store(t, target, filepath.Join(dir, "target.vhd"))
				if out, want := run(t, dir, "vhdiinfo", "target.vhd"), fmt.Sprintf("(%d bytes)", GuestSize(target)); !strings.Contains(out, want) {
					t.Fatalf("not %s:\n%s", want, out)
				}
				mount := filepath.Join(dir, "mount")
				if err := os.Mkdir(mount, 0o700); err != nil {
					t.Fatal(err)
				}
				run(t, dir, "vhdimount", "target.vhd", mount)
				t.Cleanup(func() { run(t, dir, "umount", mount) })
				run(t, dir, "qemu-img", "compare", "-f", "raw", "-F", "raw", filepath.Join(mount, "vhdi1"), "disk.raw")
			})
		}
	}
}
