package area

import (
	"context"
	"crypto/sha256"
	"encoding"
	"fmt"
	"hash"

	"flatimg/cmd/internal/servers"
)

// hashStep is the number of bytes that are read and hashed at a time.
const hashStep = 1 << 20

// zeros are hashed for holes.
var zeros [hashStep]byte

// maxHoles is the most bytes of holes, some seconds of work, that are hashed. A
// file with more is compared run by run: its checksum would cost its size, not
// its data.
const maxHoles = 4 << 30

// hasher computes the SHA-256 of a file, and can go on where an earlier one
// was.
type hasher struct {
	src servers.Source
	h   hash.Hash
	off int64
	buf []byte
	// at, which may be nil, is called with the state now and then.
	at func(hashState)
	// counted, which may be nil, is called with the bytes of data.
	counted func(n int64)
}

// newHasher returns a hasher that goes on from a state, which may be nil or
// damaged: then it begins anew.
func newHasher(src servers.Source, from *hashState) *hasher {
	h := &hasher{src: src, h: sha256.New(), buf: make([]byte, hashStep)}
	if from != nil && from.Offset > 0 && from.Offset <= src.Size() {
		if err := h.h.(encoding.BinaryUnmarshaler).UnmarshalBinary(from.State); err == nil {
			h.off = from.Offset
		} else {
			h.h.Reset()
		}
	}
	return h
}

// stateEvery is how many bytes are hashed between two states.
const stateEvery = 8 << 20

// sum hashes the rest; holes are not read.
func (h *hasher) sum(ctx context.Context) ([]byte, error) {
	told := h.off
	for h.off < h.src.Size() {
		start, end, err := h.src.NextData(h.off)
		if err != nil {
			return nil, err
		}
		if err := h.skip(ctx, start); err != nil {
			return nil, err
		}
		for h.off < end {
			if err := context.Cause(ctx); err != nil {
				return nil, err
			}
			n := min(hashStep, end-h.off)
			if k, err := h.src.ReadAt(h.buf[:n], h.off); int64(k) < n {
				return nil, fmt.Errorf("read to hash, at offset %#x: %w", h.off, err)
			}
			h.h.Write(h.buf[:n])
			h.off += n
			if h.counted != nil {
				h.counted(n)
			}
			if h.at != nil && h.off-told >= stateEvery {
				h.tell()
				told = h.off
			}
		}
	}
	return h.h.Sum(nil), nil
}

// skip hashes a hole that ends at offset to.
func (h *hasher) skip(ctx context.Context, to int64) error {
	for h.off < to {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n := min(hashStep, to-h.off)
		h.h.Write(zeros[:n])
		h.off += n
	}
	return nil
}

func (h *hasher) tell() {
	h.at(hashState{h.off, marshalHash(h.h)})
}

// hashFile returns the SHA-256 of src; holes are not read.
func hashFile(ctx context.Context, src servers.Source) ([]byte, error) {
	return newHasher(src, nil).sum(ctx)
}
