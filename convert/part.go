package convert

import (
	"iter"

	"flatimg/layers"
	"flatimg/layers/volume"
)

// part is a disk of which only some clusters are of interest: in the offset map
// the others are holes.
type part struct {
	Disk
	bits     uint // log2 of the cluster size in bytes
	clusters *bitmap
}

// Extents yields those of the clusters that are of interest, with holes between.
func (p part) Extents(off, length int64) iter.Seq2[layers.Extent, error] {
	return func(yield func(layers.Extent, error) bool) {
		for end := off + min(length, p.Size()-off); off < end; {
			i, n := off>>p.bits, shiftUp(end, p.bits)
			if !p.clusters.has(i) {
				stop := min(end, p.clusters.nextOne(i)<<p.bits)
				if !yield(layers.Extent{Offset: off, Length: stop - off, Layer: -1, Kind: volume.Hole, Host: volume.NoHost}, nil) {
					return
				}
				off = stop
				continue
			}
			stop := min(end, p.clusters.nextZero(i, n)<<p.bits)
			for e, err := range p.Disk.Extents(off, stop-off) {
				if !yield(e, err) || err != nil {
					return
				}
			}
			off = stop
		}
	}
}
