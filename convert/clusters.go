package convert

import (
	"errors"
	"iter"

	"flatimg/layers"
	"flatimg/layers/volume"
)

const (
	// maxClusters is the greatest number of clusters of a disk: 2 PiB of 64 KiB,
	// as much as a qcow2's L1 table can hold. An empty disk of this size costs
	// 16 MiB for the bitmap's directory.
	maxClusters = 1 << 35
	// maxOwnedPages bounds the memory of a bitmap to 256 MiB: 128 TiB in
	// clusters of 64 KiB, not counting ranges that are all data or all empty.
	// A small image can map its clusters again and again, so that it takes
	// more than any real disk.
	maxOwnedPages = 1 << 16
)

// errFragmented says that a bitmap would pass maxOwnedPages.
var errFragmented = errors.New("the map of its data takes more than 256 MiB of memory")

// clusters is the data part that compact formats share: those clusters of the
// guest's disk that hold data, packed in their order on the disk. Offsets are
// relative to its first byte. The last cluster is whole, with zeros past the
// end of the disk. Safe for concurrent use.
type clusters struct {
	src  Disk
	bits uint // log2 of the cluster size in bytes
	// present has a bit for each cluster of the disk: does it hold data?
	present *bitmap
}

// holdsData tells whether bytes of e may differ from zero.
func holdsData(e layers.Extent) bool {
	return e.Kind == volume.Data || e.Kind == volume.Compressed
}

// newClusters walks the offset map of src, which must have at most maxClusters
// clusters of 1<<bits bytes.
func newClusters(src Disk, bits uint) (*clusters, error) {
	present := newBitmap(shiftUp(src.Size(), bits))
	for e, err := range src.Extents(0, src.Size()) {
		if err != nil {
			return nil, err
		}
		if !holdsData(e) {
			continue
		}
		present.set(e.Offset>>bits, shiftUp(e.Offset+e.Length, bits))
		if present.owned > maxOwnedPages {
			return nil, errFragmented
		}
	}
	present.index()
	return &clusters{src: src, bits: bits, present: present}, nil
}

// allClusters returns the data part in which each cluster of src is stored,
// whether it holds data or not. The offset map is not resolved for it.
func allClusters(src Disk, bits uint) *clusters {
	present := newBitmap(shiftUp(src.Size(), bits))
	present.set(0, present.n)
	present.index()
	return &clusters{src: src, bits: bits, present: present}
}

// size of the data part in bytes.
func (c *clusters) size() int64 { return c.present.count() << c.bits }

// guest returns the offset on the disk of the byte at off of the data part,
// which must lie within its size.
func (c *clusters) guest(off int64) int64 {
	return c.present.selectOne(off>>c.bits)<<c.bits | off&(1<<c.bits-1)
}

// appendSegments appends the segments of [off, off+length) of the data part.
func (c *clusters) appendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	from := len(dst)
	for length > 0 {
		guest := c.guest(off)
		// As far as the clusters are neighbours on the disk too, they are one
		// question to the source.
		limit := min(c.present.n, shiftUp(guest+length, c.bits))
		run := c.present.nextZero(guest>>c.bits, limit)<<c.bits - guest
		run = min(run, length)
		var err error
		if dst, err = appendGuest(dst, c.src, guest, run); err != nil {
			return nil, err
		}
		off += run
		length -= run
	}
	return join(dst, from), nil
}

// dataRuns yields the runs of the data part at and after off that are not zeros
// by the offset map. Clusters that hold some data are a part of it only where
// they do.
func (c *clusters) dataRuns(off int64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		if off >= c.size() {
			return
		}
		guest := c.guest(off)
		if guest >= c.src.Size() {
			return
		}
		for e, err := range c.src.Extents(guest, c.src.Size()-guest) {
			if err != nil {
				yield(Run{}, err)
				return
			}
			// The clusters of an extent of data are all there, so they are
			// neighbours in the data part.
			if holdsData(e) && !yield(Run{c.place(e.Offset), e.Length}, nil) {
				return
			}
		}
	}
}

// place returns the offset in the data part of the byte at guest on the disk,
// whose cluster must hold data.
func (c *clusters) place(guest int64) int64 {
	return c.present.rank(guest>>c.bits)<<c.bits | guest&(1<<c.bits-1)
}
