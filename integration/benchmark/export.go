package main

import (
	"os"
	"path/filepath"
	"strings"

	"flatimg/integration/rig"
)

// exportTarget is a target format as both sides name it.
type exportTarget struct {
	spec string   // for flatimg export --format
	qemu []string // arguments of qemu-img convert
}

var qcow2Target = exportTarget{"qcow2", []string{"-W", "-O", "qcow2"}}

// export compares an export to qcow2 with qemu-img convert, on a file system
// that has to copy and on one that can share blocks.
func export(b *bench) (figures []figure) {
	im := b.sevenLayers()
	b.onExt4(im, func(top string) {
		m := b.exports(top, qcow2Target)
		figures = append(figures, figure{what: "export to qcow2, ext4", ours: m[0], peer: m[1], unit: seconds, goal: 1})
	})
	b.onXFS(im, func(top string) {
		m := b.exports(top, qcow2Target)
		figures = append(figures, figure{what: "export to qcow2, XFS with reflinks", ours: m[0], peer: m[1], unit: seconds, goal: 0.1})
	})
	return figures
}

// onExt4 calls f with the path of the image's top on an ext4: where it is, or
// else a copy.
func (b *bench) onExt4(im *rig.Image, f func(top string)) {
	b.scoped(func() {
		if strings.TrimSpace(rig.Run(b, "stat", "-f", "-c", "%T", im.Dir)) == "ext2/ext3" {
			f(im.Top)
		} else {
			f(b.copyTo(im, rig.Ext4(b, 8<<30)))
		}
	})
}

// onXFS calls f with the path of the top of a copy of the image on an XFS that
// can share blocks.
func (b *bench) onXFS(im *rig.Image, f func(top string)) {
	b.scoped(func() { f(b.copyTo(im, rig.XFS(b, 8<<30))) })
}

// copyTo copies a chain to another folder and returns the path of its top there.
func (b *bench) copyTo(im *rig.Image, dir string) string {
	for _, path := range im.Paths {
		b.command("cp", path, dir)
	}
	return filepath.Join(dir, filepath.Base(im.Top))
}

// exports returns the medians of both sides in seconds.
func (b *bench) exports(top string, t exportTarget) []float64 {
	dest := filepath.Join(filepath.Dir(top), "export")
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
		measured(func() { b.flatimg("export", "--quiet", "--format", t.spec, top, dest) }),
		measured(func() {
			b.command("qemu-img", append(append([]string{"convert", "-t", "writeback", "-m", "16"}, t.qemu...), top, dest)...)
		}),
	)
}
