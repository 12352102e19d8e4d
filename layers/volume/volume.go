// Package volume is the contract between the offset map and the volume
// formats: what a volume says about its guest bytes, and how it is read.
//
// A format lives in its own folder beside this one, implements [Volume] and,
// when it stores compressed clusters, [Inflater]. It imports this package and
// none of its siblings; package layers imports them all and joins volumes to a
// chain.
package volume

import "errors"

// ErrNotThisFormat says that a file is not of the format that it was opened
// as. It is the only error that lets probing go on to the next format.
var ErrNotThisFormat = errors.New("not an image of this format")

// Kind says what a volume holds for a run of guest bytes.
type Kind uint8

const (
	// Hole: the volume says nothing, the one below it decides.
	Hole Kind = iota
	// Zero: the volume says that these bytes are zeros.
	Zero
	// Data: the bytes stand in a file of the volume as they are.
	Data
	// Compressed: the bytes are part of a cluster that is stored compressed.
	Compressed
	// Unwritten: the bytes have a place in a file of the volume, but the file
	// has a hole there: they are zeros.
	Unwritten
)

// String returns the name of the kind as DESIGN's vocabulary has it.
func (k Kind) String() string {
	switch k {
	case Hole:
		return "hole"
	case Zero:
		return "zero"
	case Data:
		return "data"
	case Compressed:
		return "compressed"
	case Unwritten:
		return "unwritten"
	}
	return "unknown"
}

// Run is what one volume says about Length guest bytes. The guest offset of a
// run follows from the runs before it.
type Run struct {
	// Length in guest bytes, at least 1.
	Length int64
	Kind   Kind
	// File is the index into [Volume.Files] of the file that Host is in.
	File int
	// Host is an offset in bytes into File: for Data that of the first byte,
	// for Compressed that of the first byte of the stored cluster, even when
	// the run covers only a part of the cluster. For the other kinds it is
	// where the volume keeps space for the run, or NoHost.
	Host int64
	// Stored is, for Compressed, the number of bytes to read at Host.
	Stored int64
}

// NoHost is the [Run.Host] of a run for which no file holds space.
const NoHost = -1

// Volume is one layer of a chain: a guest disk of which it holds a part.
// All methods are safe for concurrent use.
type Volume interface {
	// Format is the name of the format as QEMU has it: "raw", "qcow2".
	Format() string
	// Size of the guest disk in bytes.
	Size() int64
	// Files that hold data; [Run.File] counts in it. The first one is the
	// file that was opened.
	Files() []*File
	// AppendRuns appends to dst runs that cover [off, off+length) exactly and
	// in order. The range must lie within Size. Data runs lie within the
	// size of their file: what a format places past the end of the file is
	// reported as Zero.
	AppendRuns(dst []Run, off, length int64) ([]Run, error)
	// EmptyUntil returns an offset such that the volume has nothing but
	// holes in [off, that offset). It does no I/O; off means "not known".
	EmptyUntil(off int64) int64
	// Close closes the files.
	Close() error
}

// Inflater is implemented by volumes that report Compressed runs.
type Inflater interface {
	// ClusterSize is the size in bytes, a power of two, of the unit that is
	// compressed. Clusters are aligned to it in the guest's disk.
	ClusterSize() int64
	// Inflate fills dst, of ClusterSize bytes, with the cluster stored at
	// host in stored bytes; both as in [Run].
	Inflate(dst []byte, host, stored int64) error
}

// Info is what people and programs are told about a volume.
type Info struct {
	// ClusterSize in bytes; 0 for formats without clusters.
	ClusterSize int64
	// Backing is the name of the backing file as stored, and its format;
	// empty where none is recorded.
	Backing, BackingFormat string
	// Features are the names of what the image uses beyond the plain format,
	// for people: "compressed (zstd)", "extended L2".
	Features []string
	// Specific is the format-specific part as `qemu-img info --output=json`
	// has it under format-specific.data; nil where there is none.
	Specific map[string]any
	// Snapshots are the internal snapshots, in the order of their table.
	Snapshots []Snapshot
	// Dirty and Corrupt are the image's own marks.
	Dirty, Corrupt bool
}

// Snapshot is an internal snapshot of a volume.
type Snapshot struct {
	ID, Name string
	// Size of the guest disk in bytes when the snapshot was taken.
	Size int64
	// Seconds and Nanoseconds since the epoch when it was taken.
	Seconds, Nanoseconds uint32
	// VMClock is the guest's run time in nanoseconds.
	VMClock uint64
	// VMStateSize in bytes; 0 when only the disk was saved.
	VMStateSize int64
	// Icount of record/replay; -1 when the snapshot has none.
	Icount int64
}

// Describer is implemented by volumes that have something to tell.
type Describer interface {
	Info() Info
}
