package integration

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flatimg/integration/rig"
)

// exportFormat is a target format and what other programs call it.
type exportFormat struct {
	spec      string
	extension string
	qemu      string
	// check says that qemu-img check knows the format.
	check bool
}

var exportFormats = []exportFormat{
	{"raw", ".raw", "raw", false},
	{"qcow2", ".qcow2", "qcow2", true},
	{"qcow2,compression=deflate", ".qcow2", "qcow2", true},
	{"qcow2,compression=zstd", ".qcow2", "qcow2", true},
	{"vmdk", ".vmdk", "vmdk", true},
	{"vmdk,subformat=monolithicFlat", ".vmdk", "vmdk", true},
	{"vmdk,subformat=streamOptimized", ".vmdk", "vmdk", true},
	{"vdi", ".vdi", "vdi", true},
	{"vdi,subformat=static", ".vdi", "vdi", true},
	{"vhd", ".vhd", "vpc", false},
	{"vhd,subformat=fixed,force_size=on", ".vhd", "vpc", false},
	{"vhdx", ".vhdx", "vhdx", true},
	{"vhdx,subformat=fixed", ".vhdx", "vhdx", true},
	{"ova", ".ova", "vmdk", true},
}

// disk returns the path of the disk in an exported file: the file itself, or
// for an OVA what tar extracts of it.
func (f exportFormat) disk(t *testing.T, path string) string {
	t.Helper()
	if f.extension != ".ova" {
		return path
	}
	dir := t.TempDir()
	rig.RunIn(t, dir, "tar", "xf", path)
	name := strings.TrimSuffix(filepath.Base(path), ".ova")
	if list := rig.Run(t, "tar", "tf", path); list != fmt.Sprintf("%[1]s.ovf\n%[1]s.mf\n%[1]s-disk1.vmdk\n", name) {
		t.Errorf("the OVA has\n%s", list)
	}
	// The manifest's lines are "SHA256(NAME)= DIGEST".
	for line := range strings.Lines(readFile(t, filepath.Join(dir, name+".mf"))) {
		file, digest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "SHA256("), ")= ")
		if sum := fmt.Sprintf("%x", sha256.Sum256([]byte(readFile(t, filepath.Join(dir, file))))); sum != digest {
			t.Errorf("SHA-256 of %s is %s, its manifest says %s", file, sum, digest)
		}
	}
	return filepath.Join(dir, name+"-disk1.vmdk")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestExportFormats exports a chain to each format, has QEMU read it, and
// exports it once more to a file that must be the same.
func TestExportFormats(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	for _, f := range exportFormats {
		t.Run(f.spec, func(t *testing.T) {
			dir := t.TempDir()
			dest := filepath.Join(dir, "web"+f.extension)
			rig.MustFlatimg(t, "export", "-q", "--verify", "--format", f.spec, im.Top, dest)
			names := []string{"web" + f.extension}
			if f.spec == "vmdk,subformat=monolithicFlat" {
				names = []string{"web-flat.vmdk", "web.vmdk"}
			}
			checkNames(t, dir, names...)
			disk := f.disk(t, dest)
			if f.check {
				rig.Run(t, "qemu-img", "check", "-q", "-f", f.qemu, disk)
			}
			rig.Run(t, "qemu-img", "compare", "-q", "-f", f.qemu, "-F", "qcow2", disk, im.Top)

			again := t.TempDir()
			rig.MustFlatimg(t, "export", "-q", "--sparse", "--format", f.spec, im.Top, again+"/")
			rig.Run(t, "qemu-img", "compare", "-q", "-f", f.qemu, "-F", "qcow2", f.disk(t, filepath.Join(again, "web"+f.extension)), im.Top)
			rig.MustFlatimg(t, "export", "-q", "--force", "--format", f.spec, im.Top, again)
			for _, name := range names {
				rig.Compare(t, filepath.Join(dir, name), filepath.Join(again, name))
			}
		})
	}
}

// TestExportSparse exports a disk on which zeros were written as data.
func TestExportSparse(t *testing.T) {
	dir := t.TempDir()
	rig.RunIn(t, dir, "qemu-img", "create", "-q", "-f", "qcow2", "disk.qcow2", "16M")
	rig.RunIn(t, dir, "qemu-io", "-f", "qcow2", "-c", "write -P 0 1M 8M", "-c", "write -P 5 3M 5k", "disk.qcow2")
	for _, f := range []struct {
		spec string
		most int64 // bytes that the file takes
	}{{"raw", 8 << 10}, {"qcow2", 6 * 64 << 10}, {"vmdk", 3 * 64 << 10}} {
		dest := filepath.Join(dir, "sparse."+f.spec)
		rig.MustFlatimg(t, "export", "-q", "-S", "--format", f.spec, filepath.Join(dir, "disk.qcow2"), dest)
		rig.RunIn(t, dir, "qemu-img", "compare", "-q", "-f", f.spec, "-F", "qcow2", dest, "disk.qcow2")
		if used := diskUsage(t, dest); used > f.most {
			t.Errorf("%s takes %d bytes", f.spec, used)
		}
	}
}

// TestMountRefusesPacked says what to do when a view would have to be written.
func TestMountRefusesPacked(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	for _, spec := range []string{"qcow2,compression=zstd", "vmdk,subformat=streamOptimized", "ova"} {
		r := rig.Flatimg(t, "mount", "--format", spec, im.Top, t.TempDir())
		if r.Code != exitUsage || !strings.Contains(r.Stderr, "hint: flatimg export --format "+spec) {
			t.Errorf("%s: exit code %d\n%s", spec, r.Code, r.Stderr)
		}
	}
}

// TestExportFlatExisting leaves all as it is when the companion exists.
func TestExportFlatExisting(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "web-flat.vmdk"), []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := rig.Flatimg(t, "export", "--format", "vmdk,subformat=monolithicFlat", im.Top, filepath.Join(dir, "web.vmdk"))
	if r.Code != exitExists || !strings.Contains(r.Stderr, "web-flat.vmdk") {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
	checkNames(t, dir, "web-flat.vmdk")
	if readFile(t, filepath.Join(dir, "web-flat.vmdk")) != "old" {
		t.Error("the companion was replaced")
	}
}

// TestExportFlatToSFTP sends both files, to a file's URL and to a folder's.
func TestExportFlatToSFTP(t *testing.T) {
	server := rig.Sshd(t)
	im := exportChain.Build(t, t.TempDir())
	area := t.TempDir()
	for _, c := range []struct{ dest, name string }{{"/other%20name.vmdk", "other name"}, {"/", "web"}, {"", "web"}} {
		dir := t.TempDir()
		rig.MustFlatimg(t, exportTo(server, area, "--format", "vmdk,subformat=monolithicFlat", im.Top, url(server, dir+c.dest))...)
		checkNames(t, dir, c.name+"-flat.vmdk", c.name+".vmdk")
		rig.RunIn(t, dir, "qemu-img", "compare", "-q", "-f", "vmdk", "-F", "qcow2", c.name+".vmdk", im.Top)
	}
	checkNames(t, area)
}
