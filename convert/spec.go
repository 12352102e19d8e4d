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
	// Format is QEMU's name of it; see [Formats].
	Format string
	// Options under QEMU's names, as written. What is missing has its default.
	// qcow2 has
	//
	//	cluster_size  512..2M, a power of two; default 64k. Larger ones need
	//	              less metadata, smaller ones store less empty space.
	//	compat        1.1 or v3 (default), 0.10 or v2 for readers from before 2012
	Options map[string]string
}

// ParseSpec parses and checks a format with its comma separated options.
func ParseSpec(s string) (Spec, error) {
	name, rest, more := strings.Cut(s, ",")
	spec := Spec{Format: name}
	for more {
		var field string
		field, rest, more = strings.Cut(rest, ",")
		option, value, ok := strings.Cut(field, "=")
		if !ok {
			return Spec{}, fmt.Errorf("target format %q: option %q has no value: write NAME=VALUE", s, field)
		}
		if _, twice := spec.Options[option]; twice {
			return Spec{}, fmt.Errorf("target format %q: option %s is given twice", s, option)
		}
		if spec.Options == nil {
			spec.Options = make(map[string]string)
		}
		spec.Options[option] = value
	}
	if _, _, err := spec.resolve(); err != nil {
		return Spec{}, err
	}
	return spec, nil
}

// resolve returns the format and the values of all its options.
func (s Spec) resolve() (format, values, error) {
	f, err := formatNamed(s.Format)
	if err != nil {
		return format{}, nil, err
	}
	v, err := f.values(s.Options)
	return f, v, err
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

// String writes the spec as [ParseSpec] reads it, options in order of name.
func (s Spec) String() string {
	var b strings.Builder
	b.WriteString(s.Format)
	for _, name := range slices.Sorted(maps.Keys(s.Options)) {
		fmt.Fprintf(&b, ",%s=%s", name, s.Options[name])
	}
	return b.String()
}
