package convert

import (
	"fmt"
	"slices"
	"strings"
)

// format is a target format.
type format struct {
	name      string
	alias     string // QEMU's name of it, where that is another one
	extension string // of the file name, with the dot
	about     string // for people, in a few words
	largest   string // virtual size, for people; empty when there is no limit
	options   []option
	// layout lays src out. The values hold every option of the format.
	layout func(src source, v values) (Target, error)
	// companions returns the suffixes of the companions that a file with these
	// values has. Nil: it has none.
	companions func(v values) []string
	// packs says whether the values ask for a file that can only be written as
	// a whole, which pack then does in place of layout. Nil: they never do.
	packs func(v values) bool
	pack  func(src source, v values) (Packer, error)
	// full is the file's size in bytes for a disk of size bytes that holds
	// data everywhere. It is called with sizes that layout has accepted.
	full func(size int64, v values) int64
}

// formats in the order in which they are shown to people.
var formats = []format{rawFormat, qcow2Format, vmdkFormat, vdiFormat, vhdFormat, vhdxFormat, ovaFormat}

// Formats returns the names of the target formats.
func Formats() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	return names
}

func formatNamed(name string) (format, error) {
	i := slices.IndexFunc(formats, func(f format) bool {
		return f.name == name || f.alias != "" && f.alias == name
	})
	if i < 0 {
		return format{}, fmt.Errorf("unknown target format %q: use one of %s", name, strings.Join(Formats(), ", "))
	}
	return formats[i], nil
}

// values returns the value of each option: that in given, else its default.
func (f format) values(given map[string]string) (values, error) {
	v := make(values, len(f.options))
	for _, o := range f.options {
		text, err := o.given(given)
		if err != nil {
			return nil, fmt.Errorf("target format %s: %w", f.name, err)
		}
		parsed, err := o.parse(text)
		if err != nil {
			return nil, fmt.Errorf("target format %s: %w", f.name, err)
		}
		v[o.name] = parsed
	}
	for name := range given {
		if !slices.ContainsFunc(f.options, func(o option) bool { return name == o.name || name == o.alias && name != "" }) {
			return nil, f.unknownOption(name)
		}
	}
	return v, nil
}

func (f format) unknownOption(name string) error {
	if len(f.options) == 0 {
		return fmt.Errorf("target format %s has no option %q; it has none at all", f.name, name)
	}
	known := make([]string, len(f.options))
	for i, o := range f.options {
		known[i] = o.String()
	}
	return fmt.Errorf("target format %s has no option %q: use %s", f.name, name, strings.Join(known, ", "))
}
