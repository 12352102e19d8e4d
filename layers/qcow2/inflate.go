package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
)

// decompressor fills dst from the compressed stream src, of which a part may
// be left over. Safe for concurrent use.
type decompressor func(dst, src []byte) error

func decompressorOf(t qcow2.CompressionType) decompressor {
	if t == qcow2.CompressionTypeZstd {
		return unzstd
	}
	return inflate
}

// maxZstdWindow bounds the memory that a frame can ask for. QEMU's frames need
// no more than a cluster, which has at most 2 MiB.
const maxZstdWindow = 8 << 20

var (
	// Decoders are kept, since making one costs more than most clusters do.
	flateReaders sync.Pool // of io.ReadCloser with flate.Resetter
	zstdReaders  sync.Pool // of *zstd.Decoder
)

// inflate reads a raw deflate stream: it has no zlib header ("Compressed
// Clusters Descriptor").
func inflate(dst, src []byte) error {
	in := bytes.NewReader(src)
	r, ok := flateReaders.Get().(io.ReadCloser)
	if !ok {
		r = flate.NewReader(in)
	} else if err := r.(flate.Resetter).Reset(in, nil); err != nil {
		return err
	}
	defer flateReaders.Put(r)
	_, err := io.ReadFull(r, dst)
	return err
}

// unzstd reads zstd frames, of which a cluster may have several. The sectors
// that follow the last frame are no part of it, so it is read as a stream.
func unzstd(dst, src []byte) error {
	d, ok := zstdReaders.Get().(*zstd.Decoder)
	if !ok {
		var err error
		// One worker: the decoder runs in the caller's goroutine, and a
		// forgotten one leaves nothing behind.
		if d, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow)); err != nil {
			return err
		}
	}
	defer zstdReaders.Put(d)
	if err := d.Reset(bytes.NewReader(src)); err != nil {
		return err
	}
	_, err := io.ReadFull(d, dst)
	return err
}

// ClusterSize implements [volume.Inflater].
func (v *Volume) ClusterSize() int64 { return v.clusterSize() }

// Inflate implements [volume.Inflater].
func (v *Volume) Inflate(dst []byte, host, stored int64) error {
	file := v.files[0]
	// The last stored cluster may be announced longer than the file is.
	src := make([]byte, max(0, min(stored, file.Size()-host)))
	if _, err := file.ReadAt(src, host); err != nil && len(src) > 0 {
		return err
	}
	if err := v.decompress(dst, src); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the compressed data ends before the cluster is full")
		}
		return fmt.Errorf("%s: compressed cluster at offset %#x, %d bytes: %w", file.Path(), host, stored, err)
	}
	return nil
}
