package main

// random compares reads of 4 KiB at random places with those of
// qemu-storage-daemon's FUSE export.
func random(b *bench) (figures []figure) {
	im := b.sevenLayers()
	count := 40000
	if b.quick {
		count = 4000
	}
	b.scoped(func() {
		ours := b.view(im.Top)
		peer, _ := b.peerView(im.Top)
		one := b.alternate(b.randomRead(ours, 1, count), b.randomRead(peer, 1, count))
		four := b.alternate(b.randomRead(ours, 4, count), b.randomRead(peer, 4, count))
		n := float64(count)
		figures = []figure{
			{what: "random 4 KiB reads, 1 job", ours: n / one[0], peer: n / one[1], unit: perSecond, goal: 1, atLeast: true},
			{what: "random 4 KiB reads, 4 jobs", ours: n / four[0], peer: n / four[1], unit: perSecond, goal: 1.8, atLeast: true},
		}
	})
	return figures
}
