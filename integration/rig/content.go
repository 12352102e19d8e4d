package rig

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Content is what a disk or file is expected to hold: pseudo-random bytes in
// some runs and zeros between them. Each byte follows from the write that made
// it and from its offset, so that a byte from a wrong layer or a wrong offset
// is seen. A Content never changes; it is safe for concurrent use.
type Content struct {
	size int64
	runs []contentRun // in order, without overlaps
}

// contentRun is [from, to), filled by one write.
type contentRun struct {
	from, to int64
	seed     uint64
	mask     uint64
}

const (
	maskAll = ^uint64(0)
	// maskCompressible leaves two random bits a byte, so that a compressor
	// finds something to do.
	maskCompressible = 0x0303030303030303
)

// Size in bytes.
func (c *Content) Size() int64 { return c.size }

// ReadAt implements [io.ReaderAt].
func (c *Content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("rig: negative offset %d", off)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), c.size-off)
	var err error
	if n < int64(len(p)) {
		err = io.EOF
	}
	p = p[:n]
	clear(p)
	i, _ := slices.BinarySearchFunc(c.runs, off, func(r contentRun, off int64) int {
		if r.to <= off {
			return -1
		}
		return 1
	})
	for _, r := range c.runs[i:] {
		if r.from >= off+n {
			break
		}
		from, to := max(r.from, off), min(r.to, off+n)
		r.fill(p[from-off:to-off], from)
	}
	return int(n), err
}

// Bytes returns length bytes at off; the range must lie within the size.
func (c *Content) Bytes(off, length int64) []byte {
	if off < 0 || off+length > c.size {
		panic(fmt.Sprintf("rig: internal error: [%d, %d) of %d bytes", off, off+length, c.size))
	}
	p := make([]byte, length)
	c.ReadAt(p, off)
	return p
}

// fill fills p with the bytes of r at off.
func (r contentRun) fill(p []byte, off int64) {
	var word [8]byte
	if skip := off % 8; skip != 0 {
		binary.LittleEndian.PutUint64(word[:], r.word(off-skip))
		n := copy(p, word[skip:])
		p, off = p[n:], off+int64(n)
	}
	for ; len(p) >= 8; p, off = p[8:], off+8 {
		binary.LittleEndian.PutUint64(p, r.word(off))
	}
	binary.LittleEndian.PutUint64(word[:], r.word(off))
	copy(p, word[:])
}

// word returns the eight bytes at off, a multiple of 8.
func (r contentRun) word(off int64) uint64 { return mix(r.seed+uint64(off)) & r.mask }

// mix is the finalizer of SplitMix64: neighbouring inputs give unrelated
// outputs.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// resized returns c cut off or extended with zeros.
func (c *Content) resized(size int64) *Content {
	return &Content{size: size, runs: cut(c.runs, size, max(size, c.size))}
}

// written returns c with r over it; a run without mask is one of zeros.
func (c *Content) written(r contentRun) *Content {
	runs := cut(c.runs, r.from, r.to)
	if r.mask != 0 {
		i, _ := slices.BinarySearchFunc(runs, r.from, func(x contentRun, from int64) int { return int(x.from - from) })
		runs = slices.Insert(runs, i, r)
	}
	return &Content{size: c.size, runs: runs}
}

// cut returns a copy of runs without [from, to).
func cut(runs []contentRun, from, to int64) []contentRun {
	kept := make([]contentRun, 0, len(runs)+2)
	for _, r := range runs {
		if head := r; r.from < from {
			head.to = min(r.to, from)
			kept = append(kept, head)
		}
		if tail := r; r.to > to {
			tail.from = max(r.from, to)
			kept = append(kept, tail)
		}
	}
	return kept
}
