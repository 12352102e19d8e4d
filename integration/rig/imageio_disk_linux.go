package rig

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"sync"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/sys/unix"
)

// imageioDisk is a sparse raw file that can lose what was written since the last
// flush. It is safe for concurrent use.
type imageioDisk struct {
	file *os.File
	size int64

	mu sync.Mutex
	// undo is what writes since the last flush have replaced, oldest first.
	undo []replaced
}

// replaced is a range of the disk before a write: zeros but for its data.
type replaced struct {
	off, size int64
	data      []written
}

type written struct {
	off  int64
	data []byte
}

// extent is one of a disk, as ovirt-imageio tells them. Offsets and lengths in
// bytes.
type extent struct {
	Start  int64 `json:"start"`
	Length int64 `json:"length"`
	Zero   bool  `json:"zero"`
	Hole   bool  `json:"hole"`
}

// diskWriter writes to a disk from an offset on.
type diskWriter struct {
	disk *imageioDisk
	off  int64
}

func (w *diskWriter) Write(p []byte) (int, error) {
	d := w.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.remember(w.off, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := d.file.WriteAt(p, w.off)
	w.off += int64(n)
	return n, err
}

// zero makes a hole.
func (d *imageioDisk) zero(off, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.remember(off, size); err != nil {
		return err
	}
	return d.punch(off, size)
}

func (d *imageioDisk) punch(off, size int64) error {
	if size == 0 {
		return nil // fallocate(2): EINVAL
	}
	return unix.Fallocate(int(d.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, size)
}

// remember saves what a write is going to replace. The caller holds mu.
func (d *imageioDisk) remember(off, size int64) error {
	extents, err := d.extents(off, size)
	if err != nil {
		return err
	}
	old := replaced{off: off, size: size}
	for _, e := range extents {
		if e.Zero {
			continue
		}
		data := make([]byte, e.Length)
		if _, err := d.file.ReadAt(data, e.Start); err != nil {
			return err
		}
		old.data = append(old.data, written{e.Start, data})
	}
	d.undo = append(d.undo, old)
	return nil
}

// flush makes what was written stay.
func (d *imageioDisk) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.undo = nil
}

// revert loses what was written since the last flush.
func (d *imageioDisk) revert() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := len(d.undo) - 1; i >= 0; i-- {
		old := d.undo[i]
		if err := d.punch(old.off, old.size); err != nil {
			return err
		}
		for _, w := range old.data {
			if _, err := d.file.WriteAt(w.data, w.off); err != nil {
				return err
			}
		}
	}
	d.undo = nil
	return nil
}

// extents returns those of a range, which the file system knows (lseek(2)).
func (d *imageioDisk) extents(off, size int64) ([]extent, error) {
	extents := []extent{}
	for end := off + size; off < end; {
		data, err := unix.Seek(int(d.file.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			data, err = end, nil
		}
		if err != nil {
			return nil, err
		}
		if data > off {
			next := min(data, end)
			extents = append(extents, extent{Start: off, Length: next - off, Zero: true, Hole: true})
			off = next
			continue
		}
		hole, err := unix.Seek(int(d.file.Fd()), off, unix.SEEK_HOLE)
		if err != nil {
			return nil, err
		}
		next := min(hole, end)
		extents = append(extents, extent{Start: off, Length: next - off})
		off = next
	}
	return extents, nil
}

// imageioHashes make the hashes of checksums, which have 32 bytes.
var imageioHashes = map[string]func() hash.Hash{
	"sha256": sha256.New,
	"blake2b": func() hash.Hash {
		h, err := blake2b.New256(nil)
		if err != nil {
			panic("rig: internal error: blake2b without a key: " + err.Error())
		}
		return h
	},
}

// checksum returns the hash of the hashes of all blocks, the last of which may
// be shorter. The hash of a block of zeros is computed once.
func (d *imageioDisk) checksum(algorithm string, blockSize int64) (string, error) {
	newHash := imageioHashes[algorithm]
	block := make([]byte, blockSize)
	sum := func(p []byte) []byte {
		h := newHash()
		h.Write(p)
		return h.Sum(nil)
	}
	zeros, all := sum(block), newHash()
	var data int64 // where the next data is, at or after the block
	for off := int64(0); off < d.size; off += blockSize {
		n := min(blockSize, d.size-off)
		if off >= data {
			var err error
			if data, err = unix.Seek(int(d.file.Fd()), off, unix.SEEK_DATA); errors.Is(err, unix.ENXIO) {
				data = d.size
			} else if err != nil {
				return "", err
			}
		}
		if n == blockSize && data >= off+n {
			all.Write(zeros)
			continue
		}
		if _, err := d.file.ReadAt(block[:n], off); err != nil && err != io.EOF {
			return "", err
		}
		all.Write(sum(block[:n]))
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}
