package integration

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// Exit codes as README documents them.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitSource      = 3
	exitRefused     = 4
	exitExists      = 5
	exitNoSpace     = 6
	exitServer      = 7
	exitPartial     = 9
	exitInterrupted = 130
)

// exportChain is a chain with something of everything.
var exportChain = rig.Chain{Name: "web", Size: 24<<20 + 512, Layers: []rig.Layer{
	{Writes: []rig.Write{{Off: 0, Len: 4 << 20}, {Kind: rig.Compressed, Off: 5 << 20, Len: 512 << 10}}},
	{Options: "cluster_size=4k", Size: 16 << 20, Writes: []rig.Write{{Off: 1<<20 + 4096, Len: 12 << 10}, {Off: 15 << 20, Len: 1 << 20}}},
	{Options: "compression_type=zstd", Writes: []rig.Write{
		{Kind: rig.Compressed, Off: 2 << 20, Len: 256 << 10},
		{Kind: rig.Zero, Off: 3 << 20, Len: 300 << 10},
		{Off: 24<<20 - 100, Len: 612},
	}},
}}

func TestExportToFile(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	for _, c := range []struct {
		name string // of the file
		args []string
		info string // of qemu-img
	}{
		{"web.raw", nil, "raw"},
		{"web", nil, "raw"},
		{"web.qcow2", nil, "qcow2"},
		{"old.img", []string{"--format", "qcow2,compat=0.10,cluster_size=4k"}, "qcow2"},
		{"verified.qcow2", []string{"--verify"}, "qcow2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			dest := filepath.Join(dir, c.name)
			r := rig.Flatimg(t, append(append([]string{"export"}, c.args...), im.Top, dest)...)
			if r.Code != 0 || r.Stdout != "" {
				t.Fatalf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
			}
			checkExported(t, im, c.info, dest)
			checkNames(t, dir, c.name)
			if got, want := mode(t, dest), newFileMode(t); got != want {
				t.Errorf("mode %v, want %v", got, want)
			}
			if verified := strings.Contains(r.Stderr, "sha256"); verified != (c.args != nil && c.args[0] == "--verify") {
				t.Errorf("report: %s", r.Stderr)
			}
			if out := rig.MustFlatimg(t, "measure", "--json", "--format", formatOf(c.args, c.info), im.Top); !strings.Contains(out, fmt.Sprint(size(t, dest))) {
				t.Errorf("size %d, measured: %s", size(t, dest), out)
			}
		})
	}
}

func mode(t *testing.T, path string) fs.FileMode {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Mode()
}

// newFileMode is the mode that the umask leaves to a new file.
func newFileMode(t *testing.T) fs.FileMode {
	t.Helper()
	path := filepath.Join(t.TempDir(), "new")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return mode(t, path)
}

func formatOf(args []string, format string) string {
	if len(args) == 2 {
		return args[1]
	}
	return format
}

// checkExported compares an exported file with what the image must hold.
func checkExported(t *testing.T, im *rig.Image, format, path string) {
	t.Helper()
	if format == "raw" {
		rig.CompareContent(t, path, im.Want)
		return
	}
	rig.Run(t, "qemu-img", "check", "-q", "-f", format, path)
	raw := filepath.Join(t.TempDir(), "raw")
	rig.Run(t, "qemu-img", "convert", "-f", format, "-O", "raw", path, raw)
	rig.CompareContent(t, raw, im.Want)
	rig.Run(t, "qemu-img", "compare", "-q", "-f", format, "-F", "qcow2", path, im.Top)
}

// checkNames fails the test unless the folder holds just these names.
func checkNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("in the folder: %q, want %q", got, want)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

func diskUsage(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Sys().(*syscall.Stat_t).Blocks * 512
}

// TestExportRandomChains compares exports of chains with all that QEMU can make.
func TestExportRandomChains(t *testing.T) {
	count := 12
	if testing.Short() {
		count = 3
	}
	for seed := range uint64(count) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := t.TempDir()
			im := rig.RandomChain(1000+seed).Build(t, t.TempDir())
			for _, format := range []string{"raw", "qcow2"} {
				dest := filepath.Join(dir, "x."+format)
				rig.MustFlatimg(t, "export", "-q", "--verify", im.Top, dest)
				checkExported(t, im, format, dest)
			}
		})
	}
}

// TestExportClones exports on a file system that shares blocks.
func TestExportClones(t *testing.T) {
	dir := rig.XFS(t, 320<<20)
	im := exportChain.Build(t, dir)
	big := bigRaw(t, filepath.Join(dir, "big.raw"), 100<<20)
	for _, format := range []string{"raw", "qcow2"} {
		dest := filepath.Join(dir, "x."+format)
		rig.MustFlatimg(t, "export", im.Top, dest)
		checkExported(t, im, format, dest)
		// Three more files of 100 MiB do not fit without sharing.
		dest = filepath.Join(dir, "big-copy."+format)
		r := rig.Flatimg(t, "export", big, dest)
		if r.Code != 0 || !strings.Contains(r.Stderr, "100 MiB of it shared") {
			t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
		}
		rig.Run(t, "qemu-img", "compare", "-q", "-f", "raw", "-F", format, big, dest)
	}
}

// bigRaw makes a raw image of length bytes, large enough to be interrupted while
// it is copied.
func bigRaw(t *testing.T, path string, length int64) string {
	t.Helper()
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(i*7 + i>>8 + 1)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); off < length; off += int64(len(content)) {
		content[0]++
		if _, err := f.WriteAt(content, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestExportToFolder(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	dir := t.TempDir()
	rig.MustFlatimg(t, "export", im.Top, dir)
	rig.MustFlatimg(t, "export", "--format", "qcow2", im.Top, dir+"/")
	checkNames(t, dir, "web.qcow2", "web.raw")
	rig.RunIn(t, im.Dir, "qemu-img", "snapshot", "-c", "before", im.Top)
	before := im.Want
	im.Write(t, rig.Write{Off: 0, Len: 1 << 20})
	rig.MustFlatimg(t, "export", "--snapshot", "before", im.Top, dir)
	rig.CompareContent(t, filepath.Join(dir, "web@before.raw"), before)
}

func TestExportExisting(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	dir := t.TempDir()
	dest := filepath.Join(dir, "web.raw")
	if err := os.WriteFile(dest, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	failExport(t, exitExists, "--force", im.Top, dest)
	if b, _ := os.ReadFile(dest); string(b) != "old" {
		t.Errorf("the file was changed: %d bytes", len(b))
	}
	rig.MustFlatimg(t, "export", "--force", im.Top, dest)
	rig.CompareContent(t, dest, im.Want)
	checkNames(t, dir, "web.raw")
}

// failExport runs an export that must end with an exit code and a message that
// contains text.
func failExport(t *testing.T, code int, text string, args ...string) {
	t.Helper()
	r := rig.Flatimg(t, append([]string{"export"}, args...)...)
	if r.Code != code || !strings.Contains(r.Stderr, text) || !strings.HasPrefix(r.Stderr, "flatimg: error: ") {
		t.Errorf("export %s: exit code %d, want %d with %q\n%s", strings.Join(args, " "), r.Code, code, text, r.Stderr)
	}
}

func TestExportRefuses(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	dir := t.TempDir()
	// Under the name of the target that the folder would get.
	if err := os.Link(im.Paths[0], filepath.Join(dir, "web.raw")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		code int
		text string
		args []string
	}{
		{exitUsage, "mkdir -p", []string{im.Top, filepath.Join(dir, "missing", "web.raw")}},
		{exitUsage, "mkdir -p", []string{im.Top, filepath.Join(dir, "missing") + "/"}},
		{exitUsage, "mkdir -p", []string{"--area", filepath.Join(dir, "missing"), im.Top, "sftp://127.0.0.1:1/x"}},
		{exitUsage, "not a folder", []string{im.Top, filepath.Join(im.Top, "web.raw")}},
		{exitUsage, "/dev/null", []string{"--force", im.Top, "/dev/null"}},
		{exitUsage, "sftp://", []string{im.Top, "gopher://host/x"}},
		{exitUsage, "floppy", []string{"--format", "floppy", im.Top, dir + "/x"}},
		{exitUsage, "few", []string{im.Top}},
		{exitSource, "no-such-image", []string{"no-such-image", dir + "/x"}},
		{exitRefused, "volume of the image", []string{"--force", im.Top, im.Top}},
		{exitRefused, "volume of the image", []string{"--force", im.Top, im.Paths[0]}},
		{exitRefused, "volume of the image", []string{"--force", im.Top, dir}},
	} {
		failExport(t, c.code, c.text, c.args...)
	}
	checkNames(t, dir, "web.raw")
	rig.MustFlatimg(t, "export", im.Top, dir+"/after.raw")
	rig.CompareContent(t, dir+"/after.raw", im.Want)
}

// TestExportThroughArea has the area and the destination on two file systems.
func TestExportThroughArea(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	area, dir := rig.TmpFS(t, 64<<20), t.TempDir()
	dest := filepath.Join(dir, "web.raw")
	r := rig.Flatimg(t, "export", "--area", area, im.Top, dest)
	if r.Code != 0 || !strings.Contains(r.Stderr, "sha256") {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
	rig.CompareContent(t, dest, im.Want)
	if usage := diskUsage(t, dest); usage > 8<<20 {
		t.Errorf("it takes %d bytes: its holes were filled", usage)
	}
	checkNames(t, dir, "web.raw")
	checkNames(t, area)

	rig.MustFlatimg(t, "export", "--area", area, "--keep-area", im.Top, filepath.Join(dir, "web.qcow2"))
	kept, err := filepath.Glob(area + "/flatimg-*/web.qcow2")
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept: %q, %v", kept, err)
	}
	rig.Compare(t, kept[0], filepath.Join(dir, "web.qcow2"))

	// An area on the destination's file system is not needed.
	same := t.TempDir()
	rig.MustFlatimg(t, "export", "--area", same, im.Top, filepath.Join(dir, "again.raw"))
	checkNames(t, same)
	// Unless a file is to be kept there.
	rig.MustFlatimg(t, "export", "--area", same, "--keep-area", im.Top, filepath.Join(dir, "third.raw"))
	if kept, err := filepath.Glob(same + "/flatimg-*/third.raw"); err != nil || len(kept) != 1 {
		t.Errorf("kept: %q, %v", kept, err)
	}
}

func TestExportFull(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	full, dir := rig.TmpFS(t, 1<<20), t.TempDir()
	failExport(t, exitNoSpace, "hint", im.Top, filepath.Join(full, "web.raw"))
	checkNames(t, full)
	failExport(t, exitNoSpace, "--area", "--area", full, im.Top, filepath.Join(dir, "web.raw"))
	failExport(t, exitNoSpace, "no space", "--area", dir, im.Top, filepath.Join(full, "web.raw"))
	checkNames(t, full)
	checkNames(t, dir)
}

// TestExportInterrupted ends exports while they copy.
func TestExportInterrupted(t *testing.T) {
	big := bigRaw(t, filepath.Join(t.TempDir(), "big.raw"), 512<<20)
	other := rig.TmpFS(t, 1<<30)
	for _, c := range []struct {
		signal syscall.Signal
		code   int
		area   string
	}{
		{syscall.SIGINT, exitInterrupted, ""},
		{syscall.SIGTERM, exitInterrupted, ""},
		{syscall.SIGINT, exitInterrupted, other},
		{syscall.SIGKILL, -1, ""},
	} {
		t.Run(fmt.Sprint(c.signal, c.area != ""), func(t *testing.T) {
			dir := t.TempDir()
			args := []string{"export", "--verify", big, filepath.Join(dir, "big.qcow2")}
			writes := dir
			if c.area != "" {
				args = append(args, "--area", c.area)
				writes = c.area
			}
			p := rig.StartFlatimg(t, args...)
			waitWriting(t, p, writes)
			begin := time.Now()
			p.Signal(c.signal)
			if code := p.Wait(t, time.Minute); code != c.code {
				t.Errorf("exit code %d, want %d\n%s", code, c.code, p.Output())
			}
			t.Logf("ended after %v", time.Since(begin))
			checkNames(t, dir)
			checkNames(t, other)
		})
	}
}

// TestExportOfChangingImage changes the image while it is exported.
func TestExportOfChangingImage(t *testing.T) {
	big := bigRaw(t, filepath.Join(t.TempDir(), "big.raw"), 512<<20)
	dir := t.TempDir()
	p := rig.StartFlatimg(t, "export", "--verify", big, filepath.Join(dir, "big.qcow2"))
	waitWriting(t, p, dir)
	// Only the time: the content must not differ, which is another error.
	if err := os.Chtimes(big, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if code := p.Wait(t, time.Minute); code != exitSource || !strings.Contains(p.Output(), "changed") {
		t.Errorf("exit code %d, want %d and a word about the change\n%s", code, exitSource, p.Output())
	}
	checkNames(t, dir)
}

// waitWriting waits until the process has written to a file below dir, whether
// it has a name or not.
func waitWriting(t *testing.T, p *rig.Process, dir string) {
	t.Helper()
	fds := fmt.Sprintf("/proc/%d/fd", p.Cmd.Process.Pid)
	rig.Eventually(t, time.Minute, "it writes to "+dir, func() bool {
		if !p.Running() {
			t.Fatalf("ended before: %s", p.Output())
		}
		entries, _ := os.ReadDir(fds)
		for _, e := range entries {
			path := filepath.Join(fds, e.Name())
			if to, _ := os.Readlink(path); !strings.HasPrefix(to, dir+"/") {
				continue
			}
			if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() && fi.Sys().(*syscall.Stat_t).Blocks > 0 {
				return true
			}
		}
		return false
	})
}

// TestExportsToOneName lets several exports race for a name: one gets it.
func TestExportsToOneName(t *testing.T) {
	im := exportChain.Build(t, t.TempDir())
	dir := t.TempDir()
	dest := filepath.Join(dir, "web.raw")
	var all []*rig.Process
	for range 4 {
		all = append(all, rig.StartFlatimg(t, "export", "--verify", im.Top, dest))
	}
	codes := map[int]int{}
	for _, p := range all {
		codes[p.Wait(t, time.Minute)]++
	}
	if codes[0] != 1 || codes[exitExists] != 3 {
		t.Errorf("exit codes and how often: %v", codes)
	}
	rig.CompareContent(t, dest, im.Want)
	checkNames(t, dir, "web.raw")
}

// TestExportIsPrivateUntilPublished looks at the file in the area.
func TestExportIsPrivateUntilPublished(t *testing.T) {
	big := bigRaw(t, filepath.Join(t.TempDir(), "big.raw"), 256<<20)
	area := rig.TmpFS(t, 1<<30)
	p := rig.StartFlatimg(t, "export", "--area", area, big, filepath.Join(t.TempDir(), "big.raw"))
	waitWriting(t, p, area)
	jobs, err := filepath.Glob(area + "/flatimg-*")
	if err != nil || len(jobs) != 1 {
		t.Fatalf("jobs %q, %v", jobs, err)
	}
	if got := mode(t, jobs[0]); got != fs.ModeDir|0o700 {
		t.Errorf("the job's folder has mode %v, want 0700", got)
	}
	if code := p.Wait(t, time.Minute); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.Output())
	}
}
