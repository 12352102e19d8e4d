package convert

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Spec names a target format and its options: what a user writes as
// "qcow2,cluster_size=2M,compat=0.10".
type Spec struct {
	// Format is one of [Formats], or QEMU's name of it.
	Format string
	// Options under QEMU's names, as written. What is missing has its default.
	// qcow2 has
	//
	//	cluster_size  512..2M, a power of two; default 64k. Larger ones need
	//	              less metadata, smaller ones store less empty space.
	//	compat        1.1 or v3 (default), 0.10 or v2 for readers from before 2012
	//	compression   none (default), deflate or zlib, zstd; compression_type is
	//	              the same. Each cluster is compressed; see [Spec.Packed].
	//
	// vmdk has
	//
	//	subformat     monolithicSparse (default), monolithicFlat: a descriptor
	//	              with a companion that holds the disk as it is,
	//	              streamOptimized: compressed; see [Spec.Packed]
	//	adapter_type  ide (default), buslogic, lsilogic, legacyESX
	//	hwversion     of VMware's virtual hardware, 4..21; default 4
	//	name          of the file without extension, as the file records it;
	//	              default: disk; see [Spec.Named]
	//	uuid          of the disk, for VirtualBox; default: derived from image
	//	              and options
	//
	// vdi has
	//
	//	subformat  dynamic (default), static: all blocks are there
	//	static     on is subformat=static
	//	uuid       of the disk; default: derived from image and options
	//
	// vhd has uuid and
	//
	//	subformat   dynamic (default), fixed: the disk as it is, with a footer
	//	force_size  off (default): the virtual size is rounded up to the next
	//	            geometry; on: to a sector, with fixed to a MiB for Azure
	//
	// vhdx has uuid and
	//
	//	subformat         dynamic (default), fixed: all blocks are there
	//	block_size        1M..256M, a power of two; 0 (default): the smallest
	//	                  that gives at most 1 Mi blocks, 1M up to 1 TiB
	//	block_state_zero  on (default): absent blocks are marked as zeros, off:
	//	                  as not present
	//
	// ova has adapter_type (default lsilogic, ide or buslogic), uuid, and name,
	// which is that of the virtual machine, too.
	Options map[string]string
	// VirtualSize in bytes of the guest's disk, a multiple of 512; what it is
	// more than the image's reads as zeros. 0 means that of the image; less
	// than that is an error.
	VirtualSize int64
}

// Named returns the spec for a file of that name: where the format records the
// name, the option for it is set, unless it is already.
func (s Spec) Named(file string) Spec {
	f, err := formatNamed(s.Format)
	if err != nil || s.Options["name"] != "" || !slices.ContainsFunc(f.options, func(o option) bool { return o.name == "name" }) {
		return s
	}
	named := maps.Clone(s.Options)
	if named == nil {
		named = make(map[string]string)
	}
	named["name"] = Stem(file, s)
	s.Options = named
	return s
}

// Stem is the name of a file of the spec without the extension, if it has that
// of the format; companions have names that begin with it.
func Stem(file string, s Spec) string {
	if stem := strings.TrimSuffix(file, s.Extension()); stem != "" {
		return stem
	}
	return file
}

// Packed says whether a file of the spec can only be written as a whole, by
// [NewPacker], since where its parts are depends on how well they compress.
func (s Spec) Packed() bool {
	f, v, err := s.resolve()
	return err == nil && f.packs != nil && f.packs(v)
}

// ParseSpec parses and checks a format with its comma separated options. Its
// errors are of type [*SpecError].
func ParseSpec(s string) (Spec, error) {
	name, rest, more := strings.Cut(s, ",")
	malformed := func(format string, args ...any) error {
		return &SpecError{fmt.Errorf("target format %q: "+format, append([]any{s}, args...)...), formatsHint}
	}
	spec := Spec{Format: name}
	for more {
		var field string
		field, rest, more = strings.Cut(rest, ",")
		option, value, ok := strings.Cut(field, "=")
		if !ok {
			return Spec{}, malformed("option %q has no value: write NAME=VALUE", field)
		}
		if _, twice := spec.Options[option]; twice {
			return Spec{}, malformed("option %s is given twice", option)
		}
		if spec.Options == nil {
			spec.Options = make(map[string]string)
		}
		spec.Options[option] = value
	}
	f, _, err := spec.resolve()
	if err != nil {
		return Spec{}, err
	}
	spec.Format = f.name // it may be an alias
	return spec, nil
}

// resolve returns the format and the values of all its options.
func (s Spec) resolve() (format, values, error) {
	f, err := formatNamed(s.Format)
	if err != nil {
		return format{}, nil, &SpecError{err, formatsHint}
	}
	v, err := f.values(s.Options)
	if err != nil {
		return format{}, nil, &SpecError{fmt.Errorf("target format %s: %w", f.name, err), formatsHint}
	}
	if f.check != nil {
		if err := f.check(v); err != nil {
			return format{}, nil, &SpecError{fmt.Errorf("target format %s: %w", f.name, err), err.Help}
		}
	}
	return f, v, nil
}

// Extension of the file name, with the dot: ".raw", ".qcow2". A spec that
// [ParseSpec] did not make may have none.
func (s Spec) Extension() string {
	f, err := formatNamed(s.Format)
	if err != nil {
		return ""
	}
	return f.extension
}

// String writes format and options as [ParseSpec] reads them, options in order
// of name.
func (s Spec) String() string {
	var b strings.Builder
	b.WriteString(s.Format)
	for _, name := range slices.Sorted(maps.Keys(s.Options)) {
		fmt.Fprintf(&b, ",%s=%s", name, s.Options[name])
	}
	return b.String()
}
