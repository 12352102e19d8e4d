package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"flatimg/integration/rig"
)

// terabyte measures a mount of a disk of 1 TiB that has data everywhere: the
// memory it takes after reads all over the disk, and the time from the command
// to the first byte.
func terabyte(b *bench) (figures []figure) {
	const size = 1 << 40
	b.Logf("making a chain of 1 TiB")
	im := b.build(spread(size, b.quick))
	b.warm(im.Paths)
	count := 20000
	if b.quick {
		count = 2000
	}
	b.scoped(func() {
		m := rig.NewMount(b, "--format", "raw", "--format", "qcow2", im.Top)
		raw := filepath.Join(m.Point, "disk.raw")
		peer, peerPID := b.peerView(im.Top)
		b.randomRead(raw, 4, count)()
		b.randomRead(peer, 4, count)()
		// Its exact size takes a walk over the whole map.
		b.command("stat", "-c", "%b", filepath.Join(m.Point, "disk.qcow2"))
		figures = append(figures, figure{what: "peak memory, 1 TiB", ours: b.peakMemory(m.PID), peer: b.peakMemory(peerPID),
			unit: bytes, goal: 100 * mib, absolute: true})
	})
	t := b.alternate(
		b.firstByte(firstData, func() string { return b.quickView(im.Top, "raw") }),
		b.firstByte(firstData, func() string {
			view, _ := b.peerView(im.Top)
			return view
		}),
	)
	return append(figures, figure{what: "open to first byte, 1 TiB", ours: t[0], peer: t[1], unit: seconds, goal: 1})
}

// quickView mounts an image in a format and returns the view. It is not rig.Mount,
// which looks after more than the mount.
func (b *bench) quickView(im, format string) string {
	point := b.TempDir()
	b.Cleanup(func() { b.flatimg("unmount", point) })
	b.flatimg("mount", "--format", format, im, point)
	base := filepath.Base(im)
	return filepath.Join(point, strings.TrimSuffix(base, filepath.Ext(base))+"."+format)
}

// firstByte returns a side that opens an image and reads its view at off. It does
// not ask for the view's size: that is answered with the space it holds, for
// which the whole map is resolved.
func (b *bench) firstByte(off int64, open func() string) side {
	return func() (elapsed float64) {
		b.scoped(func() {
			elapsed = timed(func() {
				f, err := os.Open(open())
				if err != nil {
					b.Fatalf("%v", err)
				}
				defer f.Close()
				if _, err := f.ReadAt(make([]byte, 4096), off); err != nil {
					b.Fatalf("%v", err)
				}
			})
		})
		return elapsed
	}
}

// firstData is where the disk of spread has its first data, in bytes.
const firstData = 10 * mib

// spread returns a chain of 3 layers, each with data below every table of the
// disk (a table of QEMU's default cluster size maps 512 MiB).
func spread(size int64, quick bool) rig.Chain {
	step := int64(512 * mib)
	if quick {
		step *= 16
	}
	c := rig.Chain{Size: size, Layers: make([]rig.Layer, 3)}
	for i := range c.Layers {
		for off := int64(i+1) * firstData; off < size; off += step {
			c.Layers[i].Writes = append(c.Layers[i].Writes, rig.Write{Off: off, Len: cluster})
		}
	}
	return c
}

// peakMemory returns the largest resident set of a process in bytes, as long as
// it runs.
func peakMemory(pid int) (float64, bool) {
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kib); err == nil {
			return kib * 1024, true
		}
	}
	return 0, false
}

// peakMemory is [peakMemory] of a process that must be running.
func (b *bench) peakMemory(pid int) float64 {
	peak, ok := peakMemory(pid)
	if !ok {
		b.Fatalf("process %d has no VmHWM", pid)
	}
	return peak
}
