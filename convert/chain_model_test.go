package convert

import (
	"crypto/sha256"
	"fmt"
	"iter"
	"math/rand/v2"

	"flatimg/layers"
	"flatimg/layers/volume"
)

// modelChain is a chain of layers by sectors, base first.
type modelChain [][]modelSector

// modelSector is what one layer says of a sector.
type modelSector struct {
	kind volume.Kind
	// seed of the content of data, 0 for data that is zeros. There are few, so
	// that layers often write what was there already.
	seed byte
	// layer that decides, in a disk.
	layer int
}

// content of the sector with that number.
func (s modelSector) content(number int64) []byte {
	if s.kind != volume.Data && s.kind != volume.Compressed || s.seed == 0 {
		return make([]byte, sectorSize)
	}
	p := pattern(number*sectorSize, sectorSize)
	for i := range p {
		p[i] ^= s.seed << 1
	}
	return p
}

// randomModel returns a chain of some layers of up to so many sectors.
func randomModel(seed uint64, sectors int) modelChain {
	r := rand.New(rand.NewPCG(seed, 0))
	size := 1 + r.IntN(sectors)
	var chain modelChain
	for i := range 1 + r.IntN(5) {
		if r.IntN(3) == 0 {
			size = 1 + r.IntN(sectors)
		}
		layer := make([]modelSector, size)
		for range r.IntN(8) {
			s := modelSector{kind: volume.Kind(r.IntN(5)), seed: byte(r.IntN(3)), layer: i}
			from := r.IntN(size)
			for at := from; at < min(size, from+1+r.IntN(1+size/2)); at++ {
				layer[at] = s
			}
		}
		chain = append(chain, layer)
	}
	return chain
}

// at returns the disk as a layer shows it, resolved one sector at a time.
func (c modelChain) at(layer int) *modelDisk {
	d := &modelDisk{sectors: make([]modelSector, len(c[layer]))}
	for number := range d.sectors {
		s := modelSector{kind: volume.Hole, layer: -1}
		for i := layer; i >= 0; i-- {
			if number >= len(c[i]) {
				s = modelSector{kind: volume.Zero, layer: i}
				break
			}
			if c[i][number].kind != volume.Hole {
				s = c[i][number]
				s.layer = i
				break
			}
		}
		d.sectors[number] = s
		d.content = append(d.content, s.content(int64(number))...)
	}
	return d
}

// modelDisk is the disk that a layer of a modelChain shows.
type modelDisk struct {
	sectors []modelSector
	content []byte
}

func (d *modelDisk) Size() int64 { return int64(len(d.sectors)) * sectorSize }

func (d *modelDisk) Fingerprint() [32]byte { return sha256.Sum256(fmt.Append(nil, d.sectors)) }

func (d *modelDisk) Extents(off, length int64) iter.Seq2[layers.Extent, error] {
	return func(yield func(layers.Extent, error) bool) {
		for end := min(d.Size(), off+length); off < end; {
			s := d.sectors[off/sectorSize]
			stop := min(end, (off/sectorSize+1)*sectorSize)
			for stop < end && d.sectors[stop/sectorSize] == s {
				stop = min(end, stop+sectorSize)
			}
			if !yield(layers.Extent{Offset: off, Length: stop - off, Layer: s.layer, Kind: s.kind}, nil) {
				return
			}
			off = stop
		}
	}
}

func (d *modelDisk) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if off < 0 || length <= 0 || off+length > d.Size() {
		panic("request outside the disk")
	}
	for e := range d.Extents(off, length) {
		s := layers.Segment{Length: e.Length, Origin: layers.Zeros}
		if holdsData(e) {
			s.Origin, s.Bytes = layers.Literal, d.content[e.Offset:][:e.Length]
		}
		dst = append(dst, s)
	}
	return dst, nil
}

// sector returns what the disk has of a sector, which may lie past its end.
func (d *modelDisk) sector(number int64) modelSector {
	if number >= int64(len(d.sectors)) {
		return modelSector{kind: volume.Hole, layer: -1}
	}
	return d.sectors[number]
}
