package layers

import (
	"fmt"
	"os"

	"flatimg/layers/volume"
)

// DefaultMaxDepth is the default of [Options.MaxDepth]: backup tools keep some
// dozens of increments, a thousand is a mistake or an attack.
const DefaultMaxDepth = 256

// limitMaxDepth is what MaxDepth can be at most: the map has two bytes for the
// number of a layer.
const limitMaxDepth = 1<<15 - 1

// Options say how an image is opened. The zero value is the default of each.
type Options struct {
	// Format of the top volume, "qcow2" or "raw". Empty: probed.
	Format string
	// Snapshot is the name or the ID of an internal snapshot of the top
	// volume to open in place of its active state.
	Snapshot string
	// AllowDirs are directories, besides that of the top image, in whose
	// trees stored paths (backing and data files) may lie.
	AllowDirs []string
	// Parents replace recorded backing files: a name as it is stored, or the
	// path that it stands for, by the path of the file to open. That one is
	// the user's word, so it may lie anywhere.
	Parents map[string]string
	// ParentFormats are the formats of files of Parents, by their paths, that
	// are not of the format recorded; empty ones are probed.
	ParentFormats map[string]string
	// SearchDirs are directories, not trees, in which a backing or data file
	// is looked for by its last name when it is not where it should be.
	SearchDirs []string
	// ForceShare opens volumes to which another process writes. What is read
	// then may be a mix of states.
	ForceShare bool
	// Peek keeps no other process from writing to the volumes while the image
	// is open. It fails all the same when one does so at the moment. For
	// looking at metadata in passing.
	Peek bool
	// MaxDepth is the greatest number of volumes in the chain, at most 32767.
	// Default: DefaultMaxDepth.
	MaxDepth int
	// IgnoreTruncation reads as zeros what a file that was cut off lacks, as
	// QEMU does. Otherwise that is an error.
	IgnoreTruncation bool
	// Cache holds the offset maps and inflated clusters of all images opened
	// with it. Default: one of its own with the default limits.
	Cache *Cache
	// Wrap, when set, gets each file that is opened and returns what to read in
	// its place: for tests, which make it fail.
	Wrap func(*os.File) volume.Source
}

// validate fills in defaults and rejects what is out of range.
func (o *Options) validate() error {
	switch {
	case o.MaxDepth == 0:
		o.MaxDepth = DefaultMaxDepth
	case o.MaxDepth < 1 || o.MaxDepth > limitMaxDepth:
		return fmt.Errorf("a chain of at most %d volumes: the limit is not within 1..%d", o.MaxDepth, limitMaxDepth)
	}
	if o.Format != "" && formatNamed(o.Format) == nil {
		return unsupportedFormat(o.Format)
	}
	if o.Cache == nil {
		o.Cache = NewCache(0, 0)
	}
	if o.Wrap == nil {
		o.Wrap = func(f *os.File) volume.Source { return f }
	}
	return nil
}
