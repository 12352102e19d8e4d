package qcow2

import (
	"encoding/binary"
	"errors"
	"testing"

	"flatimg/layers/volume"
)

// FuzzOpen opens crafted images and walks over all that they say. The input is
// what stands at the start of each cluster of the image, so that the fuzzer
// need not find the tables in a large file.
func FuzzOpen(f *testing.F) {
	words := func(v ...uint64) []byte {
		var b []byte
		for _, w := range v {
			b = binary.BigEndian.AppendUint64(b, w)
		}
		return b
	}
	head := func(version uint32, change func(c craft)) []byte {
		c := newCraft(version)
		if change != nil {
			change(c)
		}
		return c[:256]
	}
	l1 := words(2 * craftCluster)
	f.Add(head(2, nil), l1, words(3*craftCluster, 0, flagCopied|3*craftCluster), []byte("hello"))
	f.Add(head(3, nil), l1, words(1, 3*craftCluster|1), []byte{})
	f.Add(head(3, func(c craft) { c.u64(72, featureExtendedL2) }), l1, words(3*craftCluster, 0x00ff00ff<<32|0xff00ff00), []byte{})
	f.Add(head(3, nil), l1, words(flagCompressed|3*craftCluster), []byte{0x4b, 0x04, 0x00})
	f.Add(head(3, func(c craft) { c.u64(72, featureCompression); c.u32(100, 112); c[104] = 1 }), l1,
		words(flagCompressed|3*craftCluster), []byte{0x28, 0xb5, 0x2f, 0xfd})
	f.Add(head(3, func(c craft) { c.u32(60, 2); c.u64(64, 3*craftCluster) }), l1, words(0), words(craftCluster, 1<<32|2<<16|3, 0, 0, 16))
	f.Add(head(3, func(c craft) { c.backing(200, "base"); c.extension(104, 0xe2792aca, "raw") }), l1, words(0), []byte{})
	f.Add(head(3, func(c craft) { c.u32(20, 9); c.u64(24, 64<<10); c.u32(36, 64) }), l1, words(0), []byte{})

	f.Fuzz(func(t *testing.T, head, l1, l2, tail []byte) {
		b := make([]byte, 4*craftCluster)
		for i, part := range [][]byte{head, l1, l2, tail} {
			copy(b[i*craftCluster:], part[:min(len(part), craftCluster)])
		}
		v, err := openBytes(t, b, Options{OpenData: func(string) (*volume.File, error) { return nil, errors.New("no data file") }})
		if err == nil {
			walk(t, v)
		}
	})
}

// walk asks v for all that it has in its first 64 MiB and checks the answers.
func walk(t *testing.T, v *Volume) {
	v.Info()
	cluster := make([]byte, v.ClusterSize())
	for off := int64(0); off < min(v.Size(), 64<<20); {
		if empty := v.EmptyUntil(off); empty > off {
			off = empty
			continue
		}
		n := min(v.Size()-off, 1<<20)
		runs, err := v.AppendRuns(nil, off, n)
		if err != nil {
			return
		}
		var sum int64
		for _, r := range runs {
			if r.Length <= 0 || r.Kind == volume.Data && (r.Host < 0 || r.Host+r.Length > v.Files()[r.File].Size()) {
				t.Fatalf("run %+v", r)
			}
			if r.Kind == volume.Compressed && v.Inflate(cluster, r.Host, r.Stored) != nil {
				return
			}
			sum += r.Length
		}
		if sum != n {
			t.Fatalf("runs of %d bytes for %d", sum, n)
		}
		off += n
	}
}
