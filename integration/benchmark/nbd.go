package main

import (
	"strconv"

	"flatimg/integration/rig"
)

// nbd compares exports to a block device with nbdcopy, for a raw image, and with
// qemu-img convert, for a chain. The device is in memory: our side flushes it,
// the others don't, and that is to cost nothing.
func nbd(b *bench) (figures []figure) {
	size := b.scaled(1024 * mib)
	im := b.sevenLayers()
	measure := func(what string, size int64, image string, peer func(uri string)) {
		b.scoped(func() {
			server := rig.Nbdkit(b, "memory", strconv.FormatInt(size, 10))
			m := b.alternate(
				func() float64 {
					return timed(func() { b.flatimg("export", "--quiet", "--stream", "--format", "raw", image, server.URI) })
				},
				func() float64 { return timed(func() { peer(server.URI) }) },
			)
			figures = append(figures, throughput(what, size, m, 1))
		})
	}
	b.scoped(func() {
		ready := b.randomFile(size, 4*mib, true)
		measure("NBD of a ready file, half holes, against nbdcopy", size, ready, func(uri string) {
			b.command("nbdcopy", ready, uri)
		})
	})
	measure("NBD of 7 layers, against qemu-img convert", im.Size, im.Top, func(uri string) {
		b.command("qemu-img", "convert", "-n", "-W", "-m", "16", "-O", "raw", im.Top, uri)
	})
	return figures
}
