package layers

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"sync/atomic"
	"time"

	"flatimg/layers/volume"
)

// Layer is one volume of an open chain.
type Layer struct {
	volume.Volume
	// Path of the volume's first file.
	Path string
	// Backing is the name of the volume below as it is stored in this one;
	// empty for the base. BackingFormat is the format recorded with it.
	Backing, BackingFormat string
	// HasWriter: when the chain was opened, with [Options.ForceShare], another
	// process was writing to the volume.
	HasWriter bool
}

// Extent is a run of guest bytes with one origin.
type Extent struct {
	// Offset and Length in guest bytes.
	Offset, Length int64
	// Layer is the index in [Image.Layers] of the volume that decides; -1
	// for a Hole.
	Layer int
	Kind  volume.Kind
	// File indexes the layer's files; Host is the offset there in bytes and
	// Stored the number of bytes that a compressed cluster takes; see
	// [volume.Run].
	File   int
	Host   int64
	Stored int64
}

// continuedBy says whether next is of the same origin and follows e.
func (e Extent) continuedBy(next Extent) bool {
	return e.Layer == next.Layer && e.Kind == next.Kind && e.File == next.File && e.Stored == next.Stored &&
		next.Host == hostAfter(e.Kind, e.Host, e.Length)
}

// Image is a flat image: the guest-visible disk of a chain of volumes.
// All methods are safe for concurrent use; Close must come last.
type Image struct {
	// Read only after Open.
	layers []Layer
	size   int64
	cache  *Cache
	// resolving has a place for each region that may be resolved at a time: a
	// map of many small pieces takes some 15 MiB while it is made.
	resolving chan struct{}
	// borrowed: the volumes belong to another image; see [Image.At].
	borrowed bool

	// Counters.
	maps, clusters usage
	loads          atomic.Int64
}

// maxResolving is the capacity of Image.resolving. It is counted for each image,
// so that one on a slow disk does not hold up others.
const maxResolving = 2

// Close closes all volumes, those of [Image.At] excepted, and forgets what is cached of the image.
func (im *Image) Close() error {
	if im.cache != nil {
		im.cache.regions.forget(func(k regionKey) bool { return k.image == im })
		im.cache.clusters.forget(func(k clusterKey) bool { return k.image == im })
	}
	if im.borrowed {
		return nil
	}
	var all error
	for _, l := range im.layers {
		all = errors.Join(all, l.Close())
	}
	return all
}

// Size of the guest disk in bytes, a multiple of 512.
func (im *Image) Size() int64 { return im.size }

// Layers of the chain; layer 0 is the base, the last is the top.
func (im *Image) Layers() []Layer { return im.layers }

// ModTime is that of the file that changed last among all layers' files.
func (im *Image) ModTime() time.Time {
	var newest time.Time
	for _, l := range im.layers {
		for _, f := range l.Files() {
			if f.ModTime().After(newest) {
				newest = f.ModTime()
			}
		}
	}
	return newest
}

// Stats of the image's offset map, an entry being a region of 64 MiB, and of
// its inflated clusters.
func (im *Image) Stats() (maps, clusters CacheStats) {
	return im.maps.stats(), im.clusters.stats()
}

// Loads says how often metadata or compressed data was read from the volumes.
// It grows after each such reading and before anybody gets what was read: if
// it has not grown and the files are as they were, so is all that is cached.
func (im *Image) Loads() int64 { return im.loads.Load() }

// emptyUntil returns an offset such that no layer has anything in [off, that
// offset); off itself when that is not known without I/O.
func (im *Image) emptyUntil(off int64) int64 {
	until := im.size
	for i, l := range im.layers {
		if off >= l.Size() {
			// The end of a short layer decides what is below it.
			if i == len(im.layers)-1 {
				continue
			}
			return off
		}
		until = min(until, l.EmptyUntil(off))
		if until <= off {
			return off
		}
	}
	return until
}

// Extents yields the extents that cover [off, off+length) in order, adjacent
// equal ones merged; the range is cut off at the image's size, so that
// [MaxLength] means: to its end. They are resolved while the loop runs. An
// error comes with a zero Extent and ends the iteration.
func (im *Image) Extents(off, length int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		if off < 0 || length < 0 {
			yield(Extent{}, fmt.Errorf("extents of [%d, +%d): %w", off, length, errRange))
			return
		}
		end := im.size
		if length < im.size-off {
			end = off + length
		}
		var held Extent // not yielded yet: what follows may continue it
		emit := func(e Extent) bool {
			if held.Length > 0 && held.continuedBy(e) {
				held.Length += e.Length
				return true
			}
			done := held.Length > 0 && !yield(held, nil)
			held = e
			if done {
				held.Length = 0
			}
			return !done
		}
		stopped := false
		for off < end && !stopped {
			// Regions that no layer touches are not even resolved.
			if empty := min(im.emptyUntil(off), end); empty > off {
				stopped = !emit(Extent{Offset: off, Length: empty - off, Layer: -1, Kind: volume.Hole, Host: volume.NoHost})
				off = empty
				continue
			}
			stop := min(end, (off>>regionBits+1)<<regionBits)
			if err := im.eachSpan(off, stop-off, func(e Extent) bool { stopped = !emit(e); return !stopped }); err != nil {
				if held.Length == 0 || yield(held, nil) {
					yield(Extent{}, sourceError(err))
				}
				return
			}
			off = stop
		}
		if held.Length > 0 {
			yield(held, nil)
		}
	}
}

// errRange says that a caller asked for what lies outside the disk.
var errRange = errors.New("range outside the disk")

// AppendSegments appends to dst the segments of [off, off+length), which must
// lie within the size. Neighbours that continue each other in a file are one
// segment.
func (im *Image) AppendSegments(dst []Segment, off, length int64) ([]Segment, error) {
	if off < 0 || length < 0 || off > im.size || length > im.size-off {
		return nil, fmt.Errorf("segments of [%#x, +%#x) of a disk of %#x bytes: %w", off, length, im.size, errRange)
	}
	first := len(dst)
	err := im.eachSpan(off, length, func(e Extent) bool {
		dst = appendSegment(dst, first, im.segment(e))
		return true
	})
	if err != nil {
		return nil, sourceError(err)
	}
	return dst, nil
}

// segment returns the segment of e.
func (im *Image) segment(e Extent) Segment {
	switch e.Kind {
	case volume.Data:
		return Segment{
			Length: e.Length, Origin: InFile, File: im.layers[e.Layer].Files()[e.File], Offset: e.Host,
			image: im, guest: e.Offset,
		}
	case volume.Compressed:
		clusterSize := im.layers[e.Layer].Volume.(volume.Inflater).ClusterSize()
		return Segment{Length: e.Length, Origin: InCluster, image: im, guest: e.Offset, cluster: clusterRef{
			layer: e.Layer, host: e.Host, stored: e.Stored, from: e.Offset & (clusterSize - 1),
		}}
	}
	return Segment{Length: e.Length, Origin: Zeros}
}

// appendSegment appends s, or lengthens the last segment when s continues it
// and that one is not before index first.
func appendSegment(dst []Segment, first int, s Segment) []Segment {
	if n := len(dst); n > first {
		last := &dst[n-1]
		if last.Origin == s.Origin &&
			(s.Origin == Zeros || s.Origin == InFile && last.File == s.File && last.Offset+last.Length == s.Offset) {
			last.Length += s.Length
			return dst
		}
	}
	return append(dst, s)
}

// ReadAt implements [io.ReaderAt] for the guest's bytes.
func (im *Image) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d: %w", off, errRange)
	}
	n := max(0, min(int64(len(p)), im.size-off))
	if n > 0 {
		var few [16]Segment
		segments, err := im.AppendSegments(few[:0], off, n)
		if err != nil {
			return 0, err
		}
		if err := ReadSegments(p[:n], segments); err != nil {
			return 0, sourceError(err)
		}
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// clusterKey names a compressed cluster of an image.
type clusterKey struct {
	image *Image
	layer int
	host  int64
}

// inflate returns the cluster that a layer stores at host.
func (im *Image) inflate(layer int, host, stored int64) ([]byte, error) {
	return im.cache.clusters.get(clusterKey{im, layer, host}, func() ([]byte, int64, error) {
		v := im.layers[layer].Volume.(volume.Inflater)
		b := make([]byte, v.ClusterSize())
		defer im.loads.Add(1)
		if err := v.Inflate(b, host, stored); err != nil {
			return nil, 0, err
		}
		return b, int64(len(b)), nil
	})
}

// MaxLength as the length of [Image.Extents] means: to the end of the disk.
const MaxLength = math.MaxInt64
