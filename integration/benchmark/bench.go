package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"flatimg/integration/rig"
)

// bench is a run of the benchmark.
type bench struct {
	*harness
	quick bool
	runs  int

	seven *rig.Image // made by sevenLayers
}

const mib = 1 << 20

// side measures one side once and returns seconds.
type side func() float64

// alternate measures the sides in turn and returns the median of each. One
// round before that is not counted.
func (b *bench) alternate(sides ...side) []float64 {
	samples := make([][]float64, len(sides))
	for run := range b.runs + 1 {
		for i, s := range sides {
			if v := s(); run > 0 {
				samples[i] = append(samples[i], v)
			}
		}
	}
	medians := make([]float64, len(sides))
	for i := range medians {
		medians[i] = median(samples[i])
	}
	return medians
}

// timed returns how many seconds f takes.
func timed(f func()) float64 {
	start := time.Now()
	f()
	return time.Since(start).Seconds()
}

// command runs a command, whose output is thrown away.
func (b *bench) command(name string, args ...string) {
	cmd := rig.Command(rig.Need(b, name), args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr.String())
	}
}

// flatimg runs the program under test.
func (b *bench) flatimg(args ...string) { b.command(rig.Binary(b), args...) }

// warm reads all files into the page cache.
func (b *bench) warm(paths []string) {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			b.Fatalf("%v", err)
		}
		_, err = io.Copy(io.Discard, f)
		f.Close()
		if err != nil {
			b.Fatalf("%v", err)
		}
	}
}

// sevenLayers returns a chain of 7 layers in 1.3 GB: a base that is mostly full
// in long runs, and overlays of shorter runs at random places, as a server's
// snapshots have them.
func (b *bench) sevenLayers() *rig.Image {
	if b.seven == nil {
		b.Logf("making a chain of 7 layers")
		full := int64(1280 * mib)
		if b.quick {
			full /= 10
		}
		b.seven = b.build(layered(full, 7))
	}
	b.warm(b.seven.Paths)
	return b.seven
}

func (b *bench) build(c rig.Chain) *rig.Image { return c.Build(b, b.TempDir()) }

// cluster is QEMU's default cluster size in bytes.
const cluster = 64 << 10

// layered returns a chain on a disk of size bytes: the base has four fifths of
// it, the overlays four hundredths each.
func layered(size int64, layers int) rig.Chain {
	r := rand.New(rand.NewPCG(uint64(size), uint64(layers)))
	c := rig.Chain{Size: size, Layers: make([]rig.Layer, layers)}
	for off := int64(0); off < size; off += 5 * mib {
		c.Layers[0].Writes = append(c.Layers[0].Writes, rig.Write{Off: off, Len: min(4*mib, size-off)})
	}
	for i := range c.Layers[1:] {
		l := &c.Layers[1+i]
		for left := size / 25; left > 0; {
			length := (1 + r.Int64N(8)) * cluster
			l.Writes = append(l.Writes, rig.Write{Off: r.Int64N((size-length)/cluster) * cluster, Len: length})
			left -= length
		}
	}
	return c
}

// peerView exports an image with qemu-storage-daemon and returns the view, a
// file, and the process.
func (b *bench) peerView(im string) (view string, pid int) {
	dir := b.TempDir()
	view = filepath.Join(dir, "view")
	if err := os.WriteFile(view, nil, 0o600); err != nil {
		b.Fatalf("%v", err)
	}
	pidFile := filepath.Join(dir, "pid")
	b.command("qemu-storage-daemon", "--daemonize", "--pidfile", pidFile,
		"--blockdev", "driver=file,node-name=file,filename="+im,
		"--blockdev", "driver=qcow2,node-name=disk,file=file,read-only=on",
		"--export", "type=fuse,id=export,node-name=disk,mountpoint="+view)
	text, err := os.ReadFile(pidFile)
	if err != nil {
		b.Fatalf("%v", err)
	}
	fmt.Sscan(string(text), &pid)
	b.Cleanup(func() { b.endPeer(pid, view) })
	return view, pid
}

// endPeer ends a qemu-storage-daemon and waits until its mount is gone.
func (b *bench) endPeer(pid int, view string) {
	process, err := os.FindProcess(pid)
	if err != nil {
		b.Fatalf("%v", err)
	}
	process.Signal(os.Interrupt)
	rig.Eventually(b, 10*time.Second, "qemu-storage-daemon ends", func() bool {
		_, err := os.Stat(filepath.Join("/proc", fmt.Sprint(pid)))
		return err != nil
	})
	if rig.IsMounted(b, view) {
		exec.Command("umount", "-l", view).Run()
	}
}

// view mounts an image with the program under test and returns its raw view.
func (b *bench) view(im string, args ...string) string {
	point := rig.Mount(b, append(args, im)...)
	base := filepath.Base(im)
	return filepath.Join(point, strings.TrimSuffix(base, filepath.Ext(base))+".raw")
}
