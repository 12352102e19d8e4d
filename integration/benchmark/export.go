package main

import (
	"os"
	"path/filepath"
	"strings"

	"flatimg/integration/rig"
)

// export compares an export to qcow2 with qemu-img convert, on a file system
// that has to copy and on one that can share blocks.
func export(b *bench) (figures []figure) {
	im := b.sevenLayers()
	b.scoped(func() {
		dir := filepath.Dir(im.Top)
		if strings.TrimSpace(rig.Run(b, "stat", "-f", "-c", "%T", dir)) != "ext2/ext3" {
			dir = b.moveTo(im, rig.Ext4(b, 8<<30))
		}
		m := b.exports(filepath.Join(dir, filepath.Base(im.Top)))
		figures = append(figures, figure{what: "export to qcow2, ext4", ours: m[0], peer: m[1], unit: seconds, goal: 1})
	})
	b.scoped(func() {
		dir := b.moveTo(im, rig.XFS(b, 8<<30))
		m := b.exports(filepath.Join(dir, filepath.Base(im.Top)))
		figures = append(figures, figure{what: "export to qcow2, XFS with reflinks", ours: m[0], peer: m[1], unit: seconds, goal: 0.1})
	})
	return figures
}

// moveTo copies a chain to another folder, which it returns.
func (b *bench) moveTo(im *rig.Image, dir string) string {
	for _, path := range im.Paths {
		b.command("cp", path, dir)
	}
	return dir
}

// exports returns the medians of both sides in seconds.
func (b *bench) exports(top string) []float64 {
	dest := filepath.Join(filepath.Dir(top), "export.qcow2")
	measured := func(f func()) side {
		return func() float64 {
			os.Remove(dest)
			// What the run before has left to be written must not slow this one.
			b.command("sync")
			return timed(f)
		}
	}
	defer os.Remove(dest)
	return b.alternate(
		measured(func() { b.flatimg("export", "--quiet", "--format", "qcow2", top, dest) }),
		measured(func() {
			b.command("qemu-img", "convert", "-t", "writeback", "-W", "-m", "16", "-O", "qcow2", top, dest)
		}),
	)
}
