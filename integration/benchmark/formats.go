package main

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"flatimg/integration/rig"
)

// formatTargets are the target formats whose files can be shared with the layers,
// each with the same options on both sides.
var formatTargets = []exportTarget{
	qcow2Target,
	{"vmdk", []string{"-W", "-O", "vmdk"}},
	{"vdi", []string{"-W", "-O", "vdi"}},
	{"vhd", []string{"-W", "-O", "vpc"}},
	// The block size is QEMU's default for small disks, not ours.
	{"vhdx,block_size=8M", []string{"-W", "-O", "vhdx", "-o", "block_size=8M"}},
}

// packedTargets are compressed with the same codec on both sides.
var packedTargets = []exportTarget{
	{"qcow2,compression=zstd", []string{"-c", "-W", "-O", "qcow2", "-o", "compression_type=zstd"}},
	{"qcow2,compression=deflate", []string{"-c", "-W", "-O", "qcow2", "-o", "compression_type=zlib"}},
	// Without -W: QEMU's streams are written in order.
	{"vmdk,subformat=streamOptimized", []string{"-c", "-O", "vmdk", "-o", "subformat=streamOptimized"}},
}

// formats compares exports to all formats with qemu-img convert, and measures
// the views in each format of a disk of 1 TiB, for which there is no peer.
func formats(b *bench) []figure {
	// There are many, and each is measured for itself.
	defer func(runs int) { b.runs = runs }(b.runs)
	b.runs = min(b.runs, 3)
	return append(append(b.plainFormats(), b.packedFormats()...), b.wideFormats()...)
}

func (b *bench) plainFormats() (figures []figure) {
	size := int64(256 * mib)
	if b.quick {
		size /= 8
	}
	b.Logf("making a chain for exports to all formats")
	im := b.build(layered(size, 7))
	b.warm(im.Paths)
	measure := func(where string, goal float64, targets []exportTarget) func(top string) {
		return func(top string) {
			for _, t := range targets {
				m := b.exports(top, t)
				what := fmt.Sprintf("export to %s, %s", t.spec, where)
				figures = append(figures, figure{what: what, ours: m[0], peer: m[1], unit: seconds, goal: goal})
			}
		}
	}
	b.onExt4(im, measure("ext4", 1, formatTargets))
	b.onXFS(im, measure("XFS with reflinks", 0.2, formatTargets))
	return figures
}

func (b *bench) packedFormats() (figures []figure) {
	size := int64(64 * mib)
	if b.quick {
		size /= 8
	}
	b.scoped(func() {
		im := filepath.Join(b.TempDir(), "disk.raw")
		if err := writeHalfText(im, size); err != nil {
			b.Fatalf("%v", err)
		}
		b.warm([]string{im})
		for _, t := range packedTargets {
			m := b.exports(im, t)
			figures = append(figures, figure{what: "export to " + t.spec, ours: m[0], peer: m[1], unit: seconds, goal: 0.8})
		}
	})
	return figures
}

// writeHalfText writes a file of size bytes of which each second piece of 256 KiB
// can be compressed, for it is of words; the others are random bytes.
func writeHalfText(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const piece = 256 << 10
	random := rand.NewChaCha8([32]byte{})
	r := rand.New(random)
	w := bufio.NewWriterSize(f, piece)
	p := make([]byte, piece)
	for off := int64(0); off < size; off += piece {
		random.Read(p)
		if off/piece%2 == 1 {
			for text := p[:0]; len(text) < piece; {
				// Small numbers are frequent, as frequent words are.
				text = fmt.Appendf(text, "word%d ", int(r.ExpFloat64()*300))
			}
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return w.Flush()
}

// wideFormats measures views of 1 TiB: the time from the command to the first
// byte, and the memory that all of them take in one mount after their metadata
// was read.
func (b *bench) wideFormats() (figures []figure) {
	b.Logf("making a chain of 1 TiB")
	im := b.build(spread(1<<40, b.quick))
	b.warm(im.Paths)
	formats := []string{"qcow2", "vmdk", "vdi", "vhd", "vhdx"}
	for _, format := range formats {
		t := b.alternate(b.firstByte(0, func() string { return b.quickView(im.Top, format) }))
		what := fmt.Sprintf("open to first byte of %s, 1 TiB", format)
		figures = append(figures, figure{what: what, ours: t[0], unit: seconds, goal: 1, absolute: true})
	}
	b.scoped(func() {
		var args []string
		for _, format := range formats {
			args = append(args, "--format", format)
		}
		m := rig.NewMount(b, append(args, im.Top)...)
		for _, format := range formats {
			// More than the metadata of any of them.
			b.command("dd", "if="+filepath.Join(m.Point, "disk."+format), "of=/dev/null", "bs=1M", "count=256", "status=none")
		}
		figures = append(figures, figure{what: "peak memory, 1 TiB in 5 formats", ours: b.peakMemory(m.PID), unit: bytes, goal: 100 * mib, absolute: true})
	})
	return figures
}
