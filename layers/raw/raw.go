// Package raw reads raw volumes: the file is the disk. What the file system
// reports as a hole of the file, the volume has as zeros.
package raw

import (
	"flatimg/layers/volume"
)

// sectorSize in bytes: the size of a disk is a multiple of it. A file that is
// not is padded with zeros, as QEMU does.
const sectorSize = 512

// Volume is a raw volume. It has no holes in the sense of [volume.Hole]: it
// decides every byte of the disk.
type Volume struct {
	files []*volume.File
	size  int64
}

var _ volume.Volume = (*Volume)(nil)

// Open returns the raw volume in file, which it closes when it is closed.
func Open(file *volume.File) (*Volume, error) {
	size := (file.Size() + sectorSize - 1) &^ (sectorSize - 1)
	return &Volume{files: []*volume.File{file}, size: size}, nil
}

// Format implements [volume.Volume].
func (v *Volume) Format() string { return "raw" }

// Size implements [volume.Volume].
func (v *Volume) Size() int64 { return v.size }

// Files implements [volume.Volume].
func (v *Volume) Files() []*volume.File { return v.files }

// EmptyUntil implements [volume.Volume].
func (v *Volume) EmptyUntil(off int64) int64 { return off }

// Close implements [volume.Volume].
func (v *Volume) Close() error { return v.files[0].Close() }

// AppendRuns implements [volume.Volume].
func (v *Volume) AppendRuns(dst []volume.Run, off, length int64) ([]volume.Run, error) {
	file := v.files[0]
	for end := off + length; off < end; {
		start, stop, err := file.NextData(off)
		if err != nil {
			return nil, err
		}
		if start == file.Size() {
			start = end // nothing but zeros from here on, padding included
		}
		if start > off {
			zeros := min(start, end) - off
			dst = append(dst, volume.Run{Length: zeros, Kind: volume.Zero, Host: off})
			off += zeros
		}
		if off < end {
			data := min(stop, end) - off
			dst = append(dst, volume.Run{Length: data, Kind: volume.Data, Host: off})
			off += data
		}
	}
	return dst, nil
}
