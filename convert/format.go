package convert

import (
	"fmt"
	"path"
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
	// check refuses values that contradict each other. Nil: none do.
	check func(v values) *SpecError
	// layout lays src out. The values hold every option of the format.
	layout func(src Disk, v values) (Target, error)
	// companions returns the suffixes of the companions that a file with these
	// values has. Nil: it has none.
	companions func(v values) []string
	// packs says whether the values ask for a file that can only be written as
	// a whole, which pack then does in place of layout. Nil: they never do.
	packs func(v values) bool
	pack  func(src Disk, v values) (Packer, error)
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

// FormatOf returns the format that the extension of a file's name or URL
// stands for, also as QEMU names it: "a/b.VPC" is of vhd. It is empty when the
// extension is of none.
func FormatOf(file string) string {
	f, err := formatNamed(strings.ToLower(strings.TrimPrefix(path.Ext(file), ".")))
	if err != nil {
		return ""
	}
	return f.name
}

// values returns the value of each option: that in given, else its default.
func (f format) values(given map[string]string) (values, error) {
	v := make(values, len(f.options))
	for _, o := range f.options {
		var err error
		if v[o.name], err = o.value(given); err != nil {
			return nil, err
		}
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
		return fmt.Errorf("no option %q; it has none at all", name)
	}
	known := make([]string, len(f.options))
	for i, o := range f.options {
		known[i] = o.String()
	}
	return fmt.Errorf("no option %q: use %s", name, strings.Join(known, ", "))
}
