package main

import (
	"math/rand/v2"

	"flatimg/integration/rig"
)

// depth compares reads of a disk in 64 layers with those of the same writes in
// one layer: only the number of layers differs, not the number of pieces.
func depth(b *bench) (figures []figure) {
	size, count := int64(512*mib), 20000
	if b.quick {
		size, count = size/8, 2000
	}
	b.Logf("making chains of 64 layers and of 1")
	deep, flat := b.build(scattered(size, 64)), b.build(scattered(size, 1))
	b.warm(deep.Paths)
	b.warm(flat.Paths)
	b.scoped(func() {
		ours := [2]string{b.view(deep.Top), b.view(flat.Top)}
		deepPeer, _ := b.peerView(deep.Top)
		flatPeer, _ := b.peerView(flat.Top)
		s := b.alternate(b.sequentialRead(ours[0]), b.sequentialRead(ours[1]),
			b.sequentialRead(deepPeer), b.sequentialRead(flatPeer))
		r := b.alternate(b.randomRead(ours[0], 1, count), b.randomRead(ours[1], 1, count),
			b.randomRead(deepPeer, 1, count), b.randomRead(flatPeer, 1, count))
		b.Logf("qemu-storage-daemon at 64 layers takes %.2f× of its time at 1 layer for sequential reads, %.2f× for random ones",
			s[2]/s[3], r[2]/r[3])
		figures = []figure{
			{what: "sequential read, 64 layers against 1", ours: s[0], peer: s[1], unit: seconds, goal: 1.1},
			{what: "random 4 KiB reads, 64 layers against 1", ours: r[0], peer: r[1], unit: seconds, goal: 1.1},
		}
	})
	return figures
}

// scattered returns a chain in which each piece of the disk is written once, in
// some layer; pieces of 256 KiB in random order.
func scattered(size int64, layers int) rig.Chain {
	const piece = 256 << 10
	r := rand.New(rand.NewPCG(uint64(size), 0))
	c := rig.Chain{Size: size, Layers: make([]rig.Layer, layers)}
	order := r.Perm(int(size / piece))
	for i, p := range order {
		l := &c.Layers[i*layers/len(order)]
		l.Writes = append(l.Writes, rig.Write{Off: int64(p) * piece, Len: piece})
	}
	return c
}
