package convert

import (
	"context"
	"iter"

	"flatimg/layers"
	"flatimg/layers/volume"
)

// zeroBits is log2 of the size in bytes of the runs that [DropZeros] looks at,
// 4 KiB: what file systems can leave out, and what qemu-img convert -S has.
const zeroBits = 12

// withoutZeros is a disk whose data was looked at.
type withoutZeros struct {
	Disk
	// content has a bit for each 4 KiB: is any byte other than zero? Where the
	// map takes too much memory, bits are set without need.
	content *bitmap
}

// DropZeros reads all data of src and returns the disk with each 4 KiB that are
// zeros as such, so that a target does not store them. It reads on all
// processors, and calls done with the number of bytes that were looked at.
func DropZeros(ctx context.Context, src Disk, done func(n int64)) (Disk, error) {
	stored, err := newClusters(src, zeroBits)
	if err != nil {
		return nil, err
	}
	type look struct {
		Run
		content []int64 // the numbers of those that are not zeros
	}
	newWork := func() (func(Run) (look, error), error) {
		b := new(batch)
		return func(r Run) (look, error) {
			l := look{Run: r}
			if _, err := b.read(stored, r, nil); err != nil {
				return l, err
			}
			for at := int64(0); at < r.Length; at += 1 << zeroBits {
				if !allZeros(b.plain[at:][:1<<zeroBits]) {
					l.content = append(l.content, (r.Offset+at)>>zeroBits)
				}
			}
			return l, nil
		}, nil
	}
	content := newBitmap(stored.present.n)
	err = ordered(ctx, stored.batches(), newWork, func(l look) error {
		for _, i := range l.content {
			if content.owned >= maxOwnedPages {
				page := i / pageBits * pageBits
				content.set(page, min(content.n, page+pageBits))
			}
			content.set(i, i+1)
		}
		done(l.Length)
		return nil
	})
	if err != nil {
		return nil, err
	}
	content.index()
	return &withoutZeros{src, content}, nil
}

// run returns the end, at most limit, of the run at off of bytes that are in
// the map of content, or are not.
func (w *withoutZeros) run(off, limit int64) (end int64, content bool) {
	i := off >> zeroBits
	content = w.content.has(i)
	if content {
		i = w.content.nextZero(i, min(w.content.n, shiftUp(limit, zeroBits)))
	} else {
		i = w.content.nextOne(i)
	}
	return min(limit, i<<zeroBits), content
}

// Extents yields those of the disk, with data that is zeros as such.
func (w *withoutZeros) Extents(off, length int64) iter.Seq2[layers.Extent, error] {
	return func(yield func(layers.Extent, error) bool) {
		for e, err := range w.Disk.Extents(off, length) {
			if err != nil || !holdsData(e) {
				if !yield(e, err) {
					return
				}
				continue
			}
			for end := e.Offset + e.Length; e.Offset < end; {
				stop, content := w.run(e.Offset, end)
				part := e
				part.Length = stop - e.Offset
				if !content {
					part.Kind, part.Host, part.Stored = volume.Zero, volume.NoHost, 0
				}
				if !yield(part, nil) {
					return
				}
				if e.Kind == volume.Data {
					e.Host += part.Length
				}
				e.Offset = stop
			}
		}
	}
}

// AppendSegments appends those of the disk, with data that is zeros as such.
func (w *withoutZeros) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	if err := checkRange(off, length, w.Size()); err != nil {
		return nil, err
	}
	for end := off + length; off < end; {
		stop, content := w.run(off, end)
		if content {
			var err error
			if dst, err = w.Disk.AppendSegments(dst, off, stop-off); err != nil {
				return nil, err
			}
		} else {
			dst = appendZeros(dst, stop-off)
		}
		off = stop
	}
	return dst, nil
}
