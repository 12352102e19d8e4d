package convert

import (
	"bytes"
	"iter"

	"flatimg/layers"
)

const (
	// vhdAlign is the alignment in bytes of the data of a block, so that it can
	// be cloned. The specification asks for none; Windows does it since 8 for
	// disks of 4 KiB sectors.
	vhdAlign = 4096
	// vhdBitmapSize is the size in bytes of a block's sector bitmap: a bit for
	// each of the 4096 sectors of 2 MiB.
	vhdBitmapSize = 512
	// vhdStride is the distance in bytes of two blocks.
	vhdStride = vhdAlign + 1<<vhdBlockBits
)

// vhdBitmap is the sector bitmap of each block: all sectors hold data. That some
// are zeros need not be told, and QEMU writes and reads it like this, too.
var vhdBitmap = bytes.Repeat([]byte{0xff}, vhdBitmapSize)

// vhdBlocks are the blocks of a dynamic VHD that hold data, in the disk's order.
// Each is
//
//	┌───────────────┐ 0, a multiple of 4 KiB in the file
//	│ zeros         │ so that the data is aligned
//	├───────────────┤ 4096 - 512; the BAT has its sector
//	│ sector bitmap │
//	├───────────────┤ 4096
//	│ data          │
//	└───────────────┘ 4096 + 2 MiB
type vhdBlocks struct{ *clusters }

// size implements [body].
func (b vhdBlocks) size() int64 { return b.present.count() * vhdStride }

// appendSegments implements [body].
func (b vhdBlocks) appendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	for length > 0 {
		block, at := off/vhdStride, off%vhdStride
		var n int64
		switch {
		case at < vhdAlign-vhdBitmapSize:
			n = min(length, vhdAlign-vhdBitmapSize-at)
			dst = appendZeros(dst, n)
		case at < vhdAlign:
			n = min(length, vhdAlign-at)
			dst = append(dst, layers.Segment{Length: n, Origin: layers.Literal, Bytes: vhdBitmap[:n]})
		default:
			n = min(length, vhdStride-at)
			var err error
			if dst, err = b.clusters.appendSegments(dst, block<<vhdBlockBits+at-vhdAlign, n); err != nil {
				return nil, err
			}
		}
		off += n
		length -= n
	}
	return dst, nil
}

// dataRuns implements [body].
func (b vhdBlocks) dataRuns(off int64) iter.Seq2[Run, error] {
	return func(yield func(Run, error) bool) {
		emit := func(start, end int64) bool {
			start = max(start, off)
			return start >= end || yield(Run{start, end - start}, nil)
		}
		block := off / vhdStride
		bitmap := block // the next block whose bitmap is to come
		from := block<<vhdBlockBits + max(0, off%vhdStride-vhdAlign)
		for r, err := range b.clusters.dataRuns(from) {
			if err != nil {
				yield(Run{}, err)
				return
			}
			for end := r.Offset + r.Length; r.Offset < end; {
				// All blocks hold some data, so none is passed over.
				block := r.Offset >> vhdBlockBits
				data := block*vhdStride + vhdAlign
				for ; bitmap <= block; bitmap++ {
					at := bitmap*vhdStride + vhdAlign
					if !emit(at-vhdBitmapSize, at) {
						return
					}
				}
				stop := min(end, (block+1)<<vhdBlockBits)
				within := r.Offset - block<<vhdBlockBits
				if !emit(data+within, data+within+stop-r.Offset) {
					return
				}
				r.Offset = stop
			}
		}
	}
}
