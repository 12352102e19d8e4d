package rig

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// RandomChain returns a chain of 1 to 6 layers with all that QEMU can make:
// cluster sizes, versions, compression, extended L2, data files, short and
// long layers, a raw base. The same seed gives the same chain.
func RandomChain(seed uint64) Chain {
	r := rand.New(rand.NewPCG(seed, 0))
	c := Chain{Seed: seed, Size: randomSize(r)}
	for i := range 1 + r.IntN(6) {
		l, cluster := randomLayer(r, i)
		size := c.Size
		if r.IntN(4) == 0 {
			l.Size = randomSize(r)
			size = l.Size
		}
		if l.Format == "qcow2" && !strings.HasPrefix(l.Options, "data_file") {
			l.Writes = compressedWrites(r, size, cluster)
		}
		for range r.IntN(12) {
			l.Writes = append(l.Writes, randomWrite(r, size, cluster))
		}
		c.Layers = append(c.Layers, l)
	}
	return c
}

// randomSize returns 1 to 8 MiB in whole sectors, often in whole clusters.
func randomSize(r *rand.Rand) int64 {
	if r.IntN(2) == 0 {
		return int64(1+r.IntN(8)) << 20
	}
	return 1<<20 + r.Int64N(7<<20)&^511
}

// randomLayer returns layer i without writes, and its cluster size in bytes.
func randomLayer(r *rand.Rand, i int) (Layer, int64) {
	if i == 0 && r.IntN(4) == 0 {
		return Layer{Format: "raw"}, 512
	}
	bits := 9 + r.IntN(13) // 512 bytes to 2 MiB
	options := ""
	switch r.IntN(6) {
	case 0:
		options = "compat=0.10"
	case 1:
		bits = max(bits, 14) // qcow2 specification: extended L2 from 16 KiB
		options = "extended_l2=on"
	case 2:
		options = "compression_type=zstd"
	case 3:
		options = fmt.Sprintf("data_file=data-%d.bin", i)
		if i == 0 && r.IntN(2) == 0 {
			options += ",data_file_raw=on"
		}
	case 4:
		bits = max(bits, 14)
		options = "extended_l2=on,compression_type=zstd"
	}
	if options != "" {
		options += ","
	}
	return Layer{Format: "qcow2", Options: fmt.Sprintf("%scluster_size=%d", options, 1<<bits)}, 1 << bits
}

// compressedWrites returns up to four writes that do not overlap: QEMU refuses
// to compress into a cluster that is allocated.
func compressedWrites(r *rand.Rand, size, cluster int64) []Write {
	var writes []Write
	off := r.Int64N(size/cluster+1) * cluster
	for range r.IntN(5) {
		w := Write{Kind: Compressed, Off: off, Len: min((1+r.Int64N(4))*cluster, size-off)}
		if w.Len <= 0 {
			break
		}
		writes = append(writes, w)
		off += w.Len + r.Int64N(4)*cluster
	}
	return writes
}

// randomWrite returns a write at any byte, half of the time in whole sectors.
func randomWrite(r *rand.Rand, size, cluster int64) Write {
	w := Write{Kind: []Kind{Data, Data, Zero, Discard}[r.IntN(4)], Off: r.Int64N(size)}
	w.Len = 1 + r.Int64N(min(size-w.Off, 4*cluster+4096))
	if r.IntN(2) == 0 {
		w.Off &^= 511
		w.Len = min((w.Len+511)&^511, size-w.Off)
	}
	return w
}
