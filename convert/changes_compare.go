package convert

import (
	"bytes"
	"context"

	"flatimg/layers"
)

// Compare reads the clusters of c from its disk and from base, and returns those
// that differ; base is zeros past its end. It reads on all processors, and calls
// done with the number of bytes of [Changes.Length] that were looked at. What
// neither of the offset maps calls data is not read.
func (c *Changes) Compare(ctx context.Context, base Disk, done func(n int64)) (*Changes, error) {
	type look struct {
		length        int64
		changed, data []int64 // the numbers of the clusters
	}
	newWork := func() (func(Run) (look, error), error) {
		var ours, theirs reader
		return func(r Run) (look, error) {
			l := look{length: r.Length}
			// The end of the last cluster is on no disk.
			length := min(r.Length, c.disk.Size()-r.Offset)
			a, err := ours.read(c.disk, r.Offset, length)
			if err != nil {
				return l, err
			}
			b, err := theirs.read(base, r.Offset, length)
			if err != nil {
				return l, err
			}
			for at := int64(0); at < length; at += 1 << c.bits {
				end := min(length, at+1<<c.bits)
				if bytes.Equal(a[at:end], b[at:end]) {
					continue
				}
				cluster := (r.Offset + at) >> c.bits
				l.changed = append(l.changed, cluster)
				if !allZeros(a[at:end]) {
					l.data = append(l.data, cluster)
				}
			}
			return l, nil
		}, nil
	}
	result := *c
	result.changed, result.data = newBitmap(c.changed.n), newBitmap(c.changed.n)
	candidates := &clusters{bits: c.bits, present: c.changed}
	err := ordered(ctx, candidates.batches(), newWork, func(l look) error {
		for _, i := range l.changed {
			if err := result.set(result.changed, i<<c.bits, 1); err != nil {
				return err
			}
		}
		for _, i := range l.data {
			if err := result.set(result.data, i<<c.bits, 1); err != nil {
				return err
			}
		}
		done(l.length)
		return nil
	})
	return result.finish(err)
}

// reader reads a disk again and again into the same memory.
type reader struct {
	p        []byte
	segments []layers.Segment
}

// read returns the range of d, with zeros past its end.
func (r *reader) read(d Disk, off, length int64) ([]byte, error) {
	var err error
	if r.segments, err = appendGuest(r.segments[:0], d, off, length); err != nil {
		return nil, err
	}
	r.p = resize(r.p, length)[:length]
	return r.p, layers.ReadSegments(r.p, r.segments)
}
