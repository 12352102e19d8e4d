package main

// sequential compares the throughput of one reader of the whole raw view with
// that of qemu-storage-daemon's FUSE export.
func sequential(b *bench) (figures []figure) {
	im := b.sevenLayers()
	b.scoped(func() {
		peer, _ := b.peerView(im.Top)
		m := b.alternate(
			b.sequentialRead(b.view(im.Top)),
			b.sequentialRead(b.view(im.Top, "-o", "direct_io")),
			b.sequentialRead(peer),
		)
		size := float64(im.Size)
		figures = []figure{
			{what: "sequential read", ours: size / m[0], peer: size / m[2], unit: bytesPerSecond, goal: 2, atLeast: true},
			{what: "sequential read, direct_io", ours: size / m[1], peer: size / m[2], unit: bytesPerSecond, goal: 4, atLeast: true},
		}
	})
	return figures
}
