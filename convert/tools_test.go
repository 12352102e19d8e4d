package convert

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"flatimg/layers"
)

// tool skips the test when a program is missing. FLATIMG_REQUIRE_TOOLS=1 makes
// that a failure.
func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("FLATIMG_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s is not installed", name)
	}
	t.Skipf("%s is not installed", name)
}

// run runs a program in dir and returns what it prints.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// store writes a target to a sparse file.
func store(t *testing.T, target Target, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(target.Size()); err != nil {
		t.Skipf("a file of %d bytes: %v", target.Size(), err)
	}
	for r, err := range DataRuns(target, 0) {
		if err != nil {
			t.Fatal(err)
		}
		for r.Length > 0 {
			p := make([]byte, min(r.Length, 1<<20))
			if _, err := ReadAt(target, p, r.Offset); err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(p, r.Offset); err != nil {
				t.Fatal(err)
			}
			r.Offset += int64(len(p))
			r.Length -= int64(len(p))
		}
	}
}

// checkWithQemu checks target.qcow2 in dir, which has size bytes, and compares
// it with the image in path.
func checkWithQemu(t *testing.T, dir string, size int64, path, format string) {
	t.Helper()
	out := run(t, dir, "qemu-img", "check", "--output=json", "-f", "qcow2", "target.qcow2")
	var check struct {
		Leaks       int   `json:"leaks"`
		Corruptions int   `json:"corruptions"`
		Errors      int   `json:"check-errors"`
		End         int64 `json:"image-end-offset"`
	}
	if err := json.Unmarshal([]byte(out), &check); err != nil {
		t.Fatal(err)
	}
	if check.Leaks+check.Corruptions+check.Errors > 0 || check.End != size {
		t.Fatalf("qemu-img check says, of %d bytes:\n%s", size, out)
	}
	run(t, dir, "qemu-img", "compare", "-f", "qcow2", "-F", format, "target.qcow2", path)
}

func TestQemuReadsLayouts(t *testing.T) {
	t.Parallel() // it mostly waits for programs
	tool(t, "qemu-img")
	cases := smallCases()
	if !testing.Short() {
		cases = append(cases, largeCases()...)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			store(t, build(t, c.disk, "raw"), filepath.Join(dir, "disk.raw"))
			target := build(t, c.disk, "qcow2"+c.options)
			store(t, target, filepath.Join(dir, "target.qcow2"))
			checkWithQemu(t, dir, target.Size(), "disk.raw", "raw")
			compat := "compat: 1.1"
			if strings.Contains(c.options, "0.10") || strings.Contains(c.options, "v2") {
				compat = "compat: 0.10"
			}
			if out := run(t, dir, "qemu-img", "info", "-f", "qcow2", "target.qcow2"); !strings.Contains(out, compat) {
				t.Errorf("not %s:\n%s", compat, out)
			}
		})
	}
}

// QEMU lays out an image with data everywhere in as many clusters as we do.
func TestFullyAllocatedAsQemuSays(t *testing.T) {
	tool(t, "qemu-img")
	for _, size := range []int64{0, 512, 64 * kiB, 64*kiB + 512, 100 * miB, 3*giB + 512, 10 * giB, 100 * giB} {
		for _, options := range []string{"cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=2M"} {
			out := run(t, t.TempDir(), "qemu-img", "measure", "--output=json", "-O", "qcow2", "-o", options, "--size", strconv.FormatInt(size, 10))
			var want struct {
				FullyAllocated int64 `json:"fully-allocated"`
			}
			if err := json.Unmarshal([]byte(out), &want); err != nil {
				t.Fatal(err)
			}
			spec, _ := ParseSpec("qcow2," + options)
			if m, err := Measure(newDisk(size), spec); err != nil || m.FullyAllocated != want.FullyAllocated {
				t.Errorf("%d bytes, %s: measure = %+v, %v, qemu-img says %d", size, options, m, err, want.FullyAllocated)
			}
		}
	}
}

// chains are made by commands of which each is a line; the last image is the top.
var chains = []struct{ name, top, commands string }{
	{"deep", "top.qcow2", `
		qemu-img create -q -f qcow2 base.qcow2 8M
		qemu-io -f qcow2 -c "write -P 1 0 1M" -c "write -P 2 3M 300k" base.qcow2
		qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o cluster_size=4k mid.qcow2
		qemu-io -f qcow2 -c "write -P 3 500k 5000" -c "write -z 64k 64k" -c "write -P 4 7M 1" mid.qcow2
		qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 -o cluster_size=2M top.qcow2
		qemu-io -f qcow2 -c "write -P 5 8388607 1" -c "discard 2M 2M" top.qcow2`},
	{"raw-base-short", "top.qcow2", `
		truncate -s 3000000 base.raw
		qemu-io -f raw -c "write -P 7 0 512" -c "write -P 8 2999296 512" base.raw
		qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2 5M
		qemu-io -f qcow2 -c "write -P 9 4M 512" top.qcow2`},
	{"short-middle", "top.qcow2", `
		qemu-img create -q -f qcow2 base.qcow2 4M
		qemu-io -f qcow2 -c "write -P 1 0 4M" base.qcow2
		qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2 1000448
		qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 4M
		qemu-io -f qcow2 -c "write -P 2 2M 100k" top.qcow2`},
	{"compressed", "top.qcow2", `
		qemu-img create -q -f raw disk.raw 4M
		qemu-io -f raw -c "write -P 1 0 1M" -c "write -P 2 1500k 300k" disk.raw
		qemu-img convert -c -f raw -O qcow2 disk.raw base.qcow2
		qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=512 disk.raw zstd.qcow2
		qemu-img create -q -f qcow2 -b zstd.qcow2 -F qcow2 top.qcow2
		qemu-io -f qcow2 -c "write -P 3 100k 1k" top.qcow2`},
	{"subclusters", "top.qcow2", `
		qemu-img create -q -f qcow2 base.qcow2 4M
		qemu-io -f qcow2 -c "write -P 1 0 2M" base.qcow2
		qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 -o extended_l2=on,cluster_size=128k top.qcow2
		qemu-io -f qcow2 -c "write -P 2 10k 3k" -c "write -z 1M 12k" -c "write -P 3 3M 4k" top.qcow2`},
	{"data-file", "top.qcow2", `
		qemu-img create -q -f qcow2 -o data_file=data.raw top.qcow2 2M
		qemu-io -f qcow2 -c "write -P 2 64k 100k" -c "write -z 128k 64k" top.qcow2`},
	{"raw", "disk.raw", `
		truncate -s 6M disk.raw
		qemu-io -f raw -c "write -P 7 1M 64k" -c "write -P 8 6290944 512" disk.raw`},
	{"empty", "top.qcow2", `
		qemu-img create -q -f qcow2 top.qcow2 1T`},
}

// TestChains lays out chains of real images and has QEMU compare the result
// with what it makes of the chain itself.
func TestChains(t *testing.T) {
	t.Parallel() // it mostly waits for programs
	tool(t, "qemu-img")
	tool(t, "qemu-io")
	for _, chain := range chains {
		t.Run(chain.name, func(t *testing.T) {
			dir := t.TempDir()
			run(t, dir, "sh", "-ec", chain.commands)
			for _, spec := range []string{
				"raw", "qcow2", "qcow2,compat=0.10", "qcow2,cluster_size=4k", "qcow2,cluster_size=2M", "qcow2,cluster_size=64k,compat=v2",
			} {
				checkChain(t, dir, chain.top, spec)
			}
		})
	}
}

func checkChain(t *testing.T, dir, top, text string) {
	t.Helper()
	open := func() (*layers.Image, Target) {
		im, err := layers.Open(filepath.Join(dir, top), layers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { im.Close() })
		return im, build(t, im, text)
	}
	im, target := open()
	spec, _ := ParseSpec(text)
	m, err := Measure(im, spec)
	if err != nil || m.Required != target.Size() || m.FullyAllocated < m.Required {
		t.Fatalf("%s: measure = %+v, %v, the target has %d bytes", text, m, err, target.Size())
	}
	path := filepath.Join(dir, "target"+spec.Extension())
	store(t, target, path)
	format := "raw"
	if strings.HasSuffix(top, ".qcow2") {
		format = "qcow2"
	}
	if spec.Format == "qcow2" {
		checkWithQemu(t, dir, target.Size(), top, format)
	} else {
		run(t, dir, "qemu-img", "compare", "-f", "raw", "-F", format, path, top)
	}
	if target.Size() > 64*miB {
		return
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var edges []int64
	if q, ok := target.(*qcow2); ok {
		edges = q.edges()
	}
	checkRanges(t, target, whole, edges)
	checkRuns(t, target)
	if _, again := open(); !bytes.Equal(read(t, again, 0, again.Size()), whole) {
		t.Errorf("%s: a second layout differs", text)
	}
}
