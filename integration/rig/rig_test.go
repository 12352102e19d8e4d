package rig_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flatimg/integration/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// flatten lets qemu-img write the flat disk of an image.
func flatten(t *testing.T, image string) string {
	flat := filepath.Join(t.TempDir(), "flat.raw")
	rig.Run(t, "qemu-img", "convert", "-O", "raw", image, flat)
	return flat
}

func TestChainMatchesQEMU(t *testing.T) {
	rig.Need(t, "qemu-img")
	chain := rig.Chain{Size: 4 << 20, Layers: []rig.Layer{
		{Format: "raw", Size: 1<<20 + 512, Writes: []rig.Write{{rig.Data, 0, 1 << 20}}},
		{Writes: []rig.Write{{rig.Data, 1000, 70000}, {rig.Compressed, 2 << 20, 256 << 10}}},
		{Size: 600 << 10, Writes: []rig.Write{{rig.Zero, 64 << 10, 64 << 10}}},
		{Options: "cluster_size=4k", Writes: []rig.Write{{rig.Data, 3 << 20, 1}, {rig.Discard, 8192, 8192}}},
	}}
	im := chain.Build(t, t.TempDir())
	rig.CompareContent(t, flatten(t, im.Top), im.Want)
	for i, path := range im.Paths {
		rig.CompareContent(t, flatten(t, path), im.Layers[i])
	}

	before := im.Want
	rig.Run(t, "qemu-img", "snapshot", "-c", "s1", im.Top)
	im.Write(t, rig.Write{Kind: rig.Data, Off: 0, Len: 5000})
	rig.CompareContent(t, flatten(t, im.Top), im.Want)
	if bytes.Equal(before.Bytes(0, 5000), im.Want.Bytes(0, 5000)) {
		t.Error("a write changed the content from before")
	}
}

func TestRandomChainMatchesQEMU(t *testing.T) {
	rig.Need(t, "qemu-img")
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			im := rig.RandomChain(seed).Build(t, t.TempDir())
			rig.CompareContent(t, flatten(t, im.Top), im.Want)
		})
	}
}

// TestContentReadAt reads at all alignments.
func TestContentReadAt(t *testing.T) {
	rig.Need(t, "qemu-img")
	im := rig.Chain{Size: 8192, Layers: []rig.Layer{{Format: "raw", Writes: []rig.Write{
		{rig.Data, 3, 50}, {rig.Data, 20, 9}, {rig.Zero, 25, 3}, {rig.Data, 4096, 4096},
	}}}}.Build(t, t.TempDir())
	file, err := os.ReadFile(im.Top)
	if err != nil {
		t.Fatal(err)
	}
	for from := int64(0); from < 80; from++ {
		for to := from + 1; to < 80; to++ {
			if got := im.Want.Bytes(from, to-from); !bytes.Equal(got, file[from:to]) {
				t.Fatalf("[%d, %d): % x, want % x", from, to, got, file[from:to])
			}
		}
	}
}

// recorder is a T that records a failure and goes on, as far as it can.
type recorder struct {
	*testing.T
	failure string
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.failure = fmt.Sprintf(format, args...)
	panic(r)
}

// failure returns the failure that f ends with.
func failure(t *testing.T, f func(rig.T)) string {
	r := &recorder{T: t}
	func() {
		defer func() {
			if p := recover(); p != nil && p != any(r) {
				panic(p)
			}
		}()
		f(r)
	}()
	return r.failure
}

func TestCompareSaysWhere(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	content := make([]byte, 3<<20)
	os.WriteFile(a, content, 0o600)
	content[2<<20+5] = 1
	os.WriteFile(b, content, 0o600)
	if got := failure(t, func(t rig.T) { rig.Compare(t, a, b) }); !strings.Contains(got, "differ first at 0x200005") {
		t.Errorf("failure %q", got)
	}
	if got := failure(t, func(t rig.T) { rig.Compare(t, a, a) }); got != "" {
		t.Errorf("failure %q", got)
	}
}

func TestMount(t *testing.T) {
	im := rig.Chain{Size: 3 << 20, Layers: []rig.Layer{{Writes: []rig.Write{{rig.Data, 1 << 20, 1 << 20}}}, {}}}.Build(t, t.TempDir())
	m := rig.NewMount(t, im.Top)
	rig.CompareContent(t, filepath.Join(m.Point, "disk.raw"), im.Want)
	if !rig.IsMounted(t, m.Point) || len(rig.Servers(t, m.Point)) != 1 {
		t.Error("the mount is not seen")
	}
	m.Unmount(t)
	if rig.IsMounted(t, m.Point) || len(rig.Servers(t, m.Point)) != 0 {
		t.Error("the mount is still seen")
	}
}

func TestSshd(t *testing.T) {
	s := rig.Sshd(t)
	command := func(args ...string) *exec.Cmd {
		words := strings.Fields(s.Command)
		return exec.Command(words[0], append(append(words[1:], s.Host), args...)...)
	}
	connection := command("echo ready; exec sleep 60")
	out, err := connection.StdoutPipe()
	if err == nil {
		err = connection.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Errorf("%q, %v", line, err)
	}
	s.Stop(t)
	if err := connection.Wait(); err == nil {
		t.Error("a connection outlives its server")
	}
	s.Restart(t)
	if out, err := command("echo", "hello").CombinedOutput(); err != nil || string(out) != "hello\n" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestFileSystems(t *testing.T) {
	dirs := map[string]string{
		"tmpfs": rig.TmpFS(t, 1<<20), "xfs": rig.XFS(t, 512<<20), "ext2/ext3": rig.Ext4(t, 32<<20),
	}
	for want, dir := range dirs {
		if got := strings.TrimSpace(rig.Run(t, "stat", "-f", "-c", "%T", dir)); got != want {
			t.Errorf("%s is of type %s, want %s", dir, got, want)
		}
		if !rig.IsMounted(t, dir) {
			t.Errorf("%s is not mounted", dir)
		}
	}
}

func TestWait(t *testing.T) {
	p := rig.Start(t, rig.Command("/bin/sh", "-c", "echo out; echo err >&2; exit 3"))
	if code := p.Wait(t, time.Minute); code != 3 || p.Output() != "out\nerr\n" {
		t.Errorf("exit code %d, output %q", code, p.Output())
	}
}
