package layers

import (
	"sort"
	"sync"
	"unsafe"

	"flatimg/layers/volume"
)

// regionBits is the log2 of the guest bytes that a region covers. The offset
// map is resolved a region at a time: a larger one makes the first read of a
// disk slower, a smaller one means more reads of L2 tables (a region of 64 MiB
// takes 8 KiB of an L2 table at 64 KiB clusters).
const (
	regionBits = 26
	regionSize = 1 << regionBits
)

// regionKey names a region of an image.
type regionKey struct {
	image *Image
	index int64
}

// region is a part of the offset map, merged across all layers: its look-up
// does not depend on the depth of the chain. Read only.
type region struct {
	// spans in order of rel, without gaps; the first has rel 0.
	spans []span
}

// span is an extent in a region, up to the next one.
type span struct {
	rel    uint32 // guest offset of the first byte, relative to the region
	stored uint32
	host   int64
	layer  int16 // -1 for a Hole
	kind   volume.Kind
	file   uint8
}

func (r *region) cost() int64 { return int64(cap(r.spans)) * int64(unsafe.Sizeof(span{})) }

// find returns the index of the span that holds rel.
func (r *region) find(rel int64) int {
	return sort.Search(len(r.spans), func(i int) bool { return int64(r.spans[i].rel) > rel }) - 1
}

// mergers are reused: a walk over a large disk resolves many regions.
var mergers = sync.Pool{New: func() any { return new(merger) }}

// merger resolves a range of the disk through the layers, the top one first.
type merger struct {
	start  int64 // guest offset of the range
	length int64 // of the range, at most regionSize
	spans  []span
	next   []span // scratch: the result of the layer being added
	runs   []volume.Run
}

// resolve returns the spans of [start, start+length).
func (im *Image) resolve(start, length int64) ([]span, error) {
	im.resolving <- struct{}{}
	defer func() {
		im.loads.Add(1)
		<-im.resolving
	}()
	m := mergers.Get().(*merger)
	defer mergers.Put(m)
	m.start, m.length = start, length
	m.spans = append(m.spans[:0], span{layer: -1, host: volume.NoHost})
	for layer := len(im.layers) - 1; layer >= 0; layer-- {
		from, to := m.holes()
		if from == to {
			break
		}
		if err := m.add(im.layers[layer].Volume, layer, from, to); err != nil {
			return nil, err
		}
	}
	// A copy of the right size: what is kept is many regions.
	return append(make([]span, 0, len(m.spans)), m.spans...), nil
}

// end returns where span i ends.
func (m *merger) end(i int) int64 {
	if i+1 < len(m.spans) {
		return int64(m.spans[i+1].rel)
	}
	return m.length
}

// holes returns the smallest range that holds all holes that are left; empty
// when there is none.
func (m *merger) holes() (from, to int64) {
	first := -1
	for i, s := range m.spans {
		if s.kind == volume.Hole {
			if first < 0 {
				first = i
			}
			to = m.end(i)
		}
	}
	if first < 0 {
		return 0, 0
	}
	return int64(m.spans[first].rel), to
}

// add fills the holes within [from, to) with what a layer has. A layer below
// the top that is shorter than the disk has zeros past its end: what lies
// below it does not show through there.
func (m *merger) add(v volume.Volume, layer int, from, to int64) error {
	size := v.Size() - m.start
	inside := max(from, min(to, size))
	if inside > from {
		if empty := v.EmptyUntil(m.start+from) - m.start; empty >= inside {
			if inside == to {
				return nil
			}
			m.runs = append(m.runs[:0], volume.Run{Length: inside - from, Kind: volume.Hole, Host: volume.NoHost})
		} else {
			var err error
			if m.runs, err = v.AppendRuns(m.runs[:0], m.start+from, inside-from); err != nil {
				return err
			}
		}
	} else {
		m.runs = m.runs[:0]
	}
	if inside < to {
		m.runs = append(m.runs, volume.Run{Length: to - inside, Kind: volume.Zero, Host: volume.NoHost})
	}
	m.overlay(layer, from, to)
	return nil
}

// overlay makes the next list of spans: the present one, with its holes within
// [from, to) replaced by m.runs, which cover that range.
func (m *merger) overlay(layer int, from, to int64) {
	m.next = m.next[:0]
	pos, runStart := from, from // pos: how far the runs are used up
	run := 0
	for i, s := range m.spans {
		start, end := int64(s.rel), m.end(i)
		if s.kind != volume.Hole || end <= from || start >= to {
			m.push(s)
			continue
		}
		for at := start; at < end; {
			for run < len(m.runs) && runStart+m.runs[run].Length <= at {
				runStart += m.runs[run].Length
				run++
			}
			r := m.runs[run]
			pos = min(end, runStart+r.Length)
			m.push(spanOf(r, layer, at, at-runStart))
			at = pos
		}
	}
	m.spans, m.next = m.next, m.spans
}

// spanOf returns the span at rel for what begins skip bytes into r.
func spanOf(r volume.Run, layer int, rel, skip int64) span {
	s := span{rel: uint32(rel), kind: r.Kind, host: r.Host}
	switch r.Kind {
	case volume.Hole:
		// Where a cluster of the base has space for what it does not hold, it
		// is told; above the base the next layer's answer replaces this one.
		s.layer = -1
		if layer > 0 {
			s.host = volume.NoHost
		}
		if s.host != volume.NoHost {
			s.host += skip
			s.file = uint8(r.File)
		}
		return s
	case volume.Compressed:
		s.stored = uint32(r.Stored)
	default:
		if r.Host != volume.NoHost {
			s.host += skip
		}
	}
	s.layer, s.file = int16(layer), uint8(r.File)
	return s
}

// push appends s to the next list, or drops it when it continues the last one.
func (m *merger) push(s span) {
	if n := len(m.next); n > 0 {
		last := m.next[n-1]
		if last.layer == s.layer && last.kind == s.kind && last.file == s.file && last.stored == s.stored &&
			s.host == hostAfter(last.kind, last.host, int64(s.rel-last.rel)) {
			return
		}
	}
	m.next = append(m.next, s)
}

// hostAfter is the Host that continues an extent of length bytes at host.
func hostAfter(kind volume.Kind, host, length int64) int64 {
	if host == volume.NoHost || kind == volume.Compressed {
		return host
	}
	return host + length
}

// region returns the region with that index, from the cache or resolved.
func (im *Image) region(index int64) (*region, error) {
	return im.cache.regions.get(regionKey{im, index}, func() (*region, int64, error) {
		start := index << regionBits
		spans, err := im.resolve(start, min(regionSize, im.size-start))
		if err != nil {
			return nil, 0, err
		}
		r := &region{spans: spans}
		return r, r.cost(), nil
	})
}

// eachSpan calls use for the extents of [off, off+length), which lies within
// the disk, in order; adjacent ones of two regions are not merged.
func (im *Image) eachSpan(off, length int64, use func(Extent) bool) error {
	for end := off + length; off < end; {
		index := off >> regionBits
		start := index << regionBits
		stop := min(end, start+regionSize)
		r, err := im.region(index)
		if err != nil {
			// One bad entry spoils its region, but not the reads of other
			// parts of it: resolve just what is asked for.
			spans, err := im.resolve(off, stop-off)
			if err != nil {
				return err
			}
			r, start = &region{spans: spans}, off
		}
		for i := r.find(off - start); off < stop; i++ {
			s := r.spans[i]
			next := stop
			if i+1 < len(r.spans) {
				next = min(next, start+int64(r.spans[i+1].rel))
			}
			e := Extent{
				Offset: off, Length: next - off, Layer: int(s.layer), Kind: s.kind,
				File: int(s.file), Host: hostAfter(s.kind, s.host, off-start-int64(s.rel)), Stored: int64(s.stored),
			}
			if !use(e) {
				return nil
			}
			off = next
		}
	}
	return nil
}
