package convert

import (
	"bytes"
	"context"
	"io"
	"iter"
	"sync"

	"flatimg/layers"
)

// batchSize is the number of bytes of the disk that a worker takes at a time:
// few enough to bound memory, enough to make reads long.
const batchSize = 1 << 20

// compress appends the compressed form of p to dst.
type compress func(dst, p []byte) ([]byte, error)

// packedCluster is a cluster of the disk that is not all zeros.
type packedCluster struct {
	index int64  // of the cluster on the disk
	plain []byte // its content
	// packed is the compressed content, which may be longer than plain.
	packed []byte
}

// batch is some neighbouring clusters.
type batch struct {
	plain, packed []byte
	clusters      []packedCluster
	// length in bytes that the batch covers on the disk.
	length int64
}

var batches = sync.Pool{New: func() any { return new(batch) }}

// packClusters reads and compresses the clusters of c and hands those that are
// not all zeros to add, in the disk's order.
func packClusters(ctx context.Context, c *clusters, newCompress func() (compress, error), done func(int64), add func(packedCluster) error) error {
	work := func() (func(Run) (*batch, error), error) {
		shrink, err := newCompress()
		if err != nil {
			return nil, err
		}
		var segments []layers.Segment
		return func(r Run) (*batch, error) {
			b := batches.Get().(*batch)
			segments, err = b.read(c, r, segments[:0])
			if err != nil {
				return nil, err
			}
			return b, b.pack(c, r, shrink)
		}, nil
	}
	return ordered(ctx, c.batches(), work, func(b *batch) error {
		for _, p := range b.clusters {
			if err := add(p); err != nil {
				return err
			}
		}
		done(b.length)
		batches.Put(b)
		return nil
	})
}

// batches yields runs of the disk that cover the clusters with data.
func (c *clusters) batches() iter.Seq[Run] {
	most := max(1, int64(batchSize)>>c.bits)
	return func(yield func(Run) bool) {
		for i := c.present.nextOne(0); i < c.present.n; {
			end := c.present.nextZero(i, min(c.present.n, i+most))
			if !yield(Run{i << c.bits, (end - i) << c.bits}) {
				return
			}
			i = c.present.nextOne(end)
		}
	}
}

func (b *batch) read(c *clusters, r Run, segments []layers.Segment) ([]layers.Segment, error) {
	b.length = r.Length
	b.plain = resize(b.plain, r.Length)
	segments, err := appendGuest(segments, c.src, r.Offset, r.Length)
	if err != nil {
		return nil, err
	}
	return segments, layers.ReadSegments(b.plain, segments)
}

// pack compresses the clusters that are not all zeros.
func (b *batch) pack(c *clusters, r Run, shrink compress) error {
	b.packed, b.clusters = b.packed[:0], b.clusters[:0]
	for at := int64(0); at < r.Length; at += 1 << c.bits {
		plain := b.plain[at:][:1<<c.bits]
		if allZeros(plain) {
			continue
		}
		// A cluster's part of packed stays valid when packed moves: it is the
		// memory from before.
		from := len(b.packed)
		var err error
		if b.packed, err = shrink(b.packed, plain); err != nil {
			return err
		}
		b.clusters = append(b.clusters, packedCluster{(r.Offset + at) >> c.bits, plain, b.packed[from:]})
	}
	return nil
}

func resize(p []byte, n int64) []byte {
	if int64(cap(p)) < n {
		return make([]byte, n)
	}
	return p[:n]
}

// zeroBlock is compared with.
var zeroBlock [64 << 10]byte

func allZeros(p []byte) bool {
	for len(p) > len(zeroBlock) {
		if !bytes.Equal(p[:len(zeroBlock)], zeroBlock[:]) {
			return false
		}
		p = p[len(zeroBlock):]
	}
	return bytes.Equal(p, zeroBlock[:len(p)])
}

// compressor is a writer that can be used again and again.
type compressor interface {
	io.WriteCloser
	Reset(w io.Writer)
}

// compressWith compresses with w, each time anew.
func compressWith(w compressor) compress {
	return func(dst, p []byte) ([]byte, error) {
		out := sliceWriter(dst)
		w.Reset(&out)
		if _, err := w.Write(p); err != nil {
			return nil, err
		}
		err := w.Close()
		return out, err
	}
}

// sliceWriter is an [io.Writer] that appends.
type sliceWriter []byte

func (w *sliceWriter) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

// gatherer turns writes that continue each other into few large ones.
type gatherer struct {
	w   io.WriterAt
	buf []byte
	at  int64 // where the first byte of buf belongs
}

// writeAt keeps a copy of p.
func (g *gatherer) writeAt(p []byte, off int64) error {
	if len(g.buf)+len(p) > batchSize || g.at+int64(len(g.buf)) != off {
		if err := g.flush(); err != nil {
			return err
		}
		g.at = off
	}
	g.buf = append(g.buf, p...)
	return nil
}

func (g *gatherer) flush() error {
	if len(g.buf) == 0 {
		return nil
	}
	_, err := g.w.WriteAt(g.buf, g.at)
	g.buf = g.buf[:0]
	return err
}
