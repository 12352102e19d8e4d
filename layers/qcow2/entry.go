package qcow2

import (
	"errors"
	"math/bits"

	"flatimg/layers/volume"
)

// Bits of L1 and L2 entries ("L1 table entry", "L2 table entry", "Standard
// Cluster Descriptor").
const (
	offsetMask     = 0x00ff_ffff_ffff_fe00 // bits 9-55
	flagCopied     = 1 << 63
	flagCompressed = 1 << 62
	flagZero       = 1 << 0

	// subclusters of a cluster with extended L2 entries.
	subclusters = 32
)

var (
	errUnaligned    = errors.New("the entry's offset is not aligned to a cluster")
	errZeroInV2     = errors.New("a zero cluster in an image of version 2")
	errBothBits     = errors.New("a subcluster is marked both allocated and zero")
	errNoHost       = errors.New("subclusters are marked allocated, but the cluster has no offset")
	errCompressed   = errors.New("a compressed cluster in an image with an external data file")
	errDataMismatch = errors.New("the data file's offset differs from the guest's")
)

// geometry is what the meaning of an L2 entry depends on. Read only.
type geometry struct {
	clusterBits uint
	version2    bool
	extendedL2  bool
	dataFile    bool
}

func (g geometry) clusterSize() int64 { return 1 << g.clusterBits }

// l2Bits is the log2 of the number of entries in an L2 table.
func (g geometry) l2Bits() uint {
	if g.extendedL2 {
		return g.clusterBits - 4
	}
	return g.clusterBits - 3
}

// tableBits is the log2 of the number of guest bytes that an L2 table covers.
func (g geometry) tableBits() uint { return g.clusterBits + g.l2Bits() }

// entrySize of an L2 table in bytes.
func (g geometry) entrySize() int64 {
	if g.extendedL2 {
		return 16
	}
	return 8
}

// cluster is a decoded L2 entry.
type cluster struct {
	// kind of the whole cluster; with a non-zero bitmap that of the
	// subclusters which neither bit names.
	kind   volume.Kind
	host   int64 // in bytes, or volume.NoHost
	stored int64 // of a compressed cluster, in bytes
	// allocated and zero have a bit for each subcluster, the first in bit 0.
	// Both are 0 where the kind holds for the whole cluster.
	allocated, zero uint32
}

// decode interprets the L2 entry of the cluster at guest offset guest, in the
// order in which QEMU looks at its bits. bitmap is the second word of an
// extended entry.
func (g geometry) decode(entry, bitmap uint64, guest int64) (cluster, error) {
	if entry&flagCompressed != 0 {
		if g.dataFile {
			return cluster{}, errCompressed
		}
		host, stored := g.decodeCompressed(entry)
		return cluster{kind: volume.Compressed, host: host, stored: stored}, nil
	}
	host := int64(entry & offsetMask)
	if host&(g.clusterSize()-1) != 0 {
		return cluster{}, errUnaligned
	}
	allocated := host != 0 || g.dataFile && entry&flagCopied != 0
	if allocated && g.dataFile && host != guest {
		return cluster{}, errDataMismatch
	}
	if !allocated {
		host = volume.NoHost
	}
	if g.extendedL2 {
		return decodeExtended(host, bitmap)
	}
	switch {
	case entry&flagZero != 0:
		if g.version2 {
			return cluster{}, errZeroInV2
		}
		if entry&offsetMask == 0 {
			host = volume.NoHost // at offset 0 only data is allocated
		}
		return cluster{kind: volume.Zero, host: host}, nil
	case allocated:
		return cluster{kind: volume.Data, host: host}, nil
	}
	return cluster{kind: volume.Hole, host: volume.NoHost}, nil
}

// decodeExtended interprets the bitmap of "Extended L2 Entries": the low half
// says which subclusters are allocated, the high half which read as zeros.
func decodeExtended(host int64, bitmap uint64) (cluster, error) {
	c := cluster{kind: volume.Hole, host: host, allocated: uint32(bitmap), zero: uint32(bitmap >> 32)}
	if c.allocated&c.zero != 0 {
		return cluster{}, errBothBits
	}
	if c.allocated != 0 && host == volume.NoHost {
		return cluster{}, errNoHost
	}
	switch {
	case c.allocated == 1<<subclusters-1:
		return cluster{kind: volume.Data, host: host}, nil
	case c.zero == 1<<subclusters-1:
		return cluster{kind: volume.Zero, host: host}, nil
	}
	return c, nil
}

// decodeCompressed returns where a compressed cluster is stored and in how
// many bytes ("Compressed Clusters Descriptor"). The bytes may run past the
// end of the stored stream and of the file.
func (g geometry) decodeCompressed(entry uint64) (host, stored int64) {
	x := 62 - (g.clusterBits - 8)
	host = int64(entry & (1<<x - 1))
	sectors := int64(entry&^(flagCopied|flagCompressed)>>x) + 1
	return host, sectors*sectorSize - host%sectorSize
}

// subRun returns the kind of subcluster i and how many from i on are alike.
func (c cluster) subRun(i int) (volume.Kind, int) {
	n := func(word uint32) int { return min(bits.TrailingZeros32(^(word >> i)), subclusters-i) }
	switch {
	case c.allocated>>i&1 != 0:
		return volume.Data, n(c.allocated)
	case c.zero>>i&1 != 0:
		return volume.Zero, n(c.zero)
	}
	return c.kind, n(^(c.allocated | c.zero))
}
