// Package qcow2 reads qcow2 volumes, versions 2 and 3, as the specification in
// QEMU's docs/interop/qcow2.txt describes them.
//
// [Open] checks the header and loads the L1 table; after that every question
// about the disk is answered from L2 tables, which are read in slices as they
// are needed and kept by nobody here: the offset map above keeps what they
// say. Files of the package: header.go (header and extensions), snapshot.go
// (snapshot table), l1.go, entry.go (what an L2 entry means), runs.go (the
// walk over the tables), inflate.go (compressed clusters), info.go.
package qcow2

import (
	"errors"
	"fmt"

	"flatimg/layers/volume"
)

// Format is the name of the format as QEMU has it.
const Format = "qcow2"

// Options say how a volume is opened.
type Options struct {
	// Snapshot is the name or ID of the internal snapshot to open. Empty: the
	// active state.
	Snapshot string
	// IgnoreTruncation reads as zeros, as QEMU does, what tables and data
	// clusters would hold past the end of a file that was cut off. Otherwise
	// that is an error.
	IgnoreTruncation bool
	// OpenData opens the external data file whose name is stored in the
	// image. It is not called for images without one.
	OpenData func(name string) (*volume.File, error)
}

// Volume is an open qcow2 volume. It is read only and safe for concurrent use.
type Volume struct {
	geometry
	header           *header
	files            []*volume.File // the image, and the data file if there is one
	dataIndex        int            // index in files of the one with the data clusters
	size             int64
	l1               l1Table
	snapshots        []snapshot
	snapshotID       string // of the snapshot that is open; empty: none
	ignoreTruncation bool
	preallocated     bool // see isPreallocated
	decompress       decompressor
}

var (
	_ volume.Volume    = (*Volume)(nil)
	_ volume.Inflater  = (*Volume)(nil)
	_ volume.Describer = (*Volume)(nil)
)

// Open returns the volume in file, which it closes when it is closed; on an
// error the caller keeps it. The error wraps [volume.ErrNotThisFormat] when the
// file is no qcow2 image.
func Open(file *volume.File, opts Options) (*Volume, error) {
	h, err := readHeader(file)
	if err != nil {
		return nil, err
	}
	v := &Volume{
		geometry: geometry{
			clusterBits: uint(h.ClusterBits),
			version2:    h.Version == 2,
			extendedL2:  h.has(featureExtendedL2),
			dataFile:    h.has(featureDataFile),
		},
		header:           h,
		files:            []*volume.File{file},
		size:             diskSize(h.Size),
		ignoreTruncation: opts.IgnoreTruncation,
		decompress:       decompressorOf(h.compression),
	}
	if v.snapshots, err = readSnapshots(file, h); err != nil {
		return nil, inFile(file, err)
	}
	l1Offset, l1Entries := h.L1TableOffset, h.L1Size
	if opts.Snapshot != "" {
		s, err := findSnapshot(v.snapshots, opts.Snapshot)
		if err != nil {
			return nil, inFile(file, err)
		}
		l1Offset, l1Entries, v.size = s.l1Offset, s.l1Entries, s.Size
		v.snapshotID = s.ID
	}
	if v.l1, err = v.readL1(l1Offset, l1Entries); err != nil {
		return nil, inFile(file, err)
	}
	if v.dataFile {
		data, err := opts.OpenData(h.dataFile)
		if err != nil {
			return nil, err
		}
		v.files = append(v.files, data)
		v.dataIndex = 1
	}
	v.preallocated = v.isPreallocated()
	return v, nil
}

// Format implements [volume.Volume].
func (v *Volume) Format() string { return Format }

// Size implements [volume.Volume].
func (v *Volume) Size() int64 { return v.size }

// Files implements [volume.Volume].
func (v *Volume) Files() []*volume.File { return v.files }

// SnapshotID is the ID of the internal snapshot that is open; empty: the active
// state.
func (v *Volume) SnapshotID() string { return v.snapshotID }

// Close implements [volume.Volume].
func (v *Volume) Close() error {
	var first error
	for _, f := range v.files {
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// inFile puts the file's name before an error that does not have it.
func inFile(file *volume.File, err error) error {
	if namesFile(err) {
		return err
	}
	return fmt.Errorf("%s: %w", file.Path(), err)
}

func namesFile(err error) bool {
	var read *volume.ReadError
	var cut *TruncatedError
	return errors.As(err, &read) || errors.As(err, &cut)
}

// truncated is the error about what lies past the end of file.
func truncated(file *volume.File, what string, off int64) error {
	return &TruncatedError{Path: file.Path(), What: what, Offset: off, Size: file.Size()}
}

// TruncatedError says that a file is too short for what the image places in it.
type TruncatedError struct {
	Path string
	What string // "L1 table", "L2 table", "data cluster", ...
	// Offset in bytes at which the missing thing begins; Size of the file.
	Offset, Size int64
}

func (e *TruncatedError) Error() string {
	return fmt.Sprintf("%s: truncated: the %s at offset %#x lies past the end of the file, which has %d bytes",
		e.Path, e.What, e.Offset, e.Size)
}

// Hint says what helps.
func (e *TruncatedError) Hint() string {
	return "get a complete copy of the file, or use --ignore-truncation to read what is missing as zeros"
}

// CorruptError says that an L2 entry can't be.
type CorruptError struct {
	Path string
	// Table is the offset in bytes of the L2 table, Index that of the entry in
	// it, Guest the offset on the disk that the entry is about.
	Table, Index, Guest int64
	Entry               uint64
	Err                 error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s: corrupt L2 entry %d (%#x) of the table at %#x, for guest offset %#x: %v",
		e.Path, e.Index, e.Entry, e.Table, e.Guest, e.Err)
}

// Unwrap returns what is wrong with the entry.
func (e *CorruptError) Unwrap() error { return e.Err }

// Hint says what helps.
func (e *CorruptError) Hint() string {
	return "qemu-img check " + e.Path + " says what else is damaged; other parts of the disk can be read through a mount"
}
