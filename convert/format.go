package convert

import (
	"fmt"
	"slices"
	"strings"
)

// format is a target format.
type format struct {
	name      string // QEMU's name of it
	extension string // of the file name, with the dot
	options   []option
	// layout lays src out. The values hold every option of the format.
	layout func(src source, v values) (Target, error)
	// full is the file's size in bytes for a disk of size bytes that holds
	// data everywhere. It is called with sizes that layout has accepted.
	full func(size int64, v values) int64
}

// formats in the order in which they are shown to people.
var formats = []format{rawFormat, qcow2Format}

// Formats returns the names of the target formats.
func Formats() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	return names
}

func formatNamed(name string) (format, error) {
	i := slices.IndexFunc(formats, func(f format) bool { return f.name == name })
	if i < 0 {
		return format{}, fmt.Errorf("unknown target format %q: use one of %s", name, strings.Join(Formats(), ", "))
	}
	return formats[i], nil
}

// values returns the value of each option: that in given, else its default.
func (f format) values(given map[string]string) (values, error) {
	v := make(values, len(f.options))
	for _, o := range f.options {
		text, ok := given[o.name]
		if !ok {
			text = o.initial
		}
		parsed, err := o.parse(text)
		if err != nil {
			return nil, fmt.Errorf("target format %s: %w", f.name, err)
		}
		v[o.name] = parsed
	}
	for name := range given {
		if _, ok := v[name]; !ok {
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
