package layers

import "fmt"

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
	// MaxDepth is the greatest number of volumes in the chain, at most 32767.
	// Default: DefaultMaxDepth.
	MaxDepth int
	// IgnoreTruncation reads as zeros what a file that was cut off lacks, as
	// QEMU does. Otherwise that is an error.
	IgnoreTruncation bool
	// Cache holds the offset maps and inflated clusters of all images opened
	// with it. Default: one of its own with the default limits.
	Cache *Cache
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
	return nil
}
