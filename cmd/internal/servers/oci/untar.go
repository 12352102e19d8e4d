package oci

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// maxZstdWindow bounds what a layer makes the decoder allocate, in bytes; zstd
// itself takes up to 8 MiB unless it is told otherwise (RFC 8878, section
// 3.1.1.1.2).
const maxZstdWindow = 64 << 20

// maxAround is the most bytes that may stand around the file in a layer that is
// read in parts.
const maxAround = 1 << 20

// errNoDisk is for a layer without a file in disk/.
var errNoDisk = errors.New("no file disk/NAME in it")

// diskReader reads the file disk/NAME out of a layer as it comes. Whether the
// layer is the one that its digest names is known at its end, which is why
// [diskReader.finish] reads it to there.
type diskReader struct {
	name string // without the folder
	size int64  // of the file in bytes
	file io.Reader

	layer descriptor
	raw   io.Reader // the bytes of the blob; all that pass are hashed
	sum   hash.Hash
	close func()
	// before is what stands before the file in a layer that is not packed; nil
	// where that is much, or something else than padding follows the file.
	before []byte
}

// openDisk opens a layer and finds the file in it.
func (c *registry) openDisk(ctx context.Context, layer descriptor) (_ *diskReader, err error) {
	body, err := c.blob(ctx, layer, 0, -1)
	if err != nil {
		return nil, err
	}
	r := &diskReader{layer: layer, sum: sha256.New(), close: func() { body.Close() }}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	// A byte more, so that a longer blob is noticed.
	r.raw = io.TeeReader(io.LimitReader(bufio.NewReaderSize(body, web.BodyBuffer), layer.Size+1), r.sum)
	plain, err := r.unpack()
	if err != nil {
		return nil, err
	}
	head := &headBuffer{}
	files := tar.NewReader(io.TeeReader(plain, head))
	for {
		h, err := files.Next()
		if err == io.EOF {
			return nil, errNoDisk
		}
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", layer.Digest, err)
		}
		dir, name := path.Split(strings.TrimPrefix(path.Clean("/"+h.Name), "/"))
		if h.Typeflag == tar.TypeReg && dir == "disk/" && !strings.HasPrefix(name, ".wh.") {
			r.name, r.size, r.file = name, h.Size, files
			if around := layer.Size - h.Size; plain == r.raw && around <= maxAround && int64(len(head.b)) <= around && !isSparse(h) {
				r.before = head.b
			}
			head.full = true
			return r, nil
		}
	}
}

// isSparse says whether what a tar file holds of a file is less than that: GNU's
// tar leaves out holes.
func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// headBuffer keeps the first bytes that are written to it, until it is full.
type headBuffer struct {
	b    []byte
	full bool
}

func (h *headBuffer) Write(p []byte) (int, error) {
	if !h.full {
		h.b = append(h.b, p...)
		h.full = len(h.b) > maxAround
	}
	return len(p), nil
}

// unpack returns the tar file of a layer; its media type says how it is packed.
func (r *diskReader) unpack() (io.Reader, error) {
	switch mediaType := r.layer.MediaType; {
	case strings.HasSuffix(mediaType, "gzip"):
		return gzip.NewReader(r.raw)
	case strings.HasSuffix(mediaType, "zstd"):
		d, err := zstd.NewReader(r.raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, err
		}
		body := r.close
		r.close = func() { body(); d.Close() }
		return d, nil
	case strings.HasSuffix(mediaType, "tar"):
		return r.raw, nil
	default:
		return nil, transfer.Lasting(fmt.Errorf("a layer of type %q is not supported", mediaType))
	}
}

// finish reads the layer to its end and compares its digest.
func (r *diskReader) finish() error {
	if _, err := io.Copy(io.Discard, r.raw); err != nil {
		return err
	}
	if got := digestOf([sha256.Size]byte(r.sum.Sum(nil))); got != r.layer.Digest {
		return fmt.Errorf("what arrived of layer %s has the digest %s", r.layer.Digest, got)
	}
	return nil
}
