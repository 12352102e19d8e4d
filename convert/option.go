package convert

import (
	"fmt"
	"slices"
	"strings"
)

// option of a target format: one of its choices, or, when it has none, a size
// that is a power of two.
type option struct {
	name    string // QEMU's name of it
	initial string // the default
	choices []string
	// least and most are the limits of a size, in bytes.
	least, most int64
}

// value of an option.
type value struct {
	text  string // as given
	bytes int64  // of a size; 0 for a choice
}

// values of a format's options, by name.
type values map[string]value

// String says how the option is written: "compat=0.10|1.1".
func (o option) String() string { return o.name + "=" + o.allowed() }

func (o option) allowed() string {
	if len(o.choices) > 0 {
		return strings.Join(o.choices, "|")
	}
	return sizeText(o.least) + ".." + sizeText(o.most)
}

func (o option) parse(text string) (value, error) {
	if len(o.choices) > 0 {
		if !slices.Contains(o.choices, text) {
			return value{}, fmt.Errorf("%s=%s is not possible: use %s", o.name, text, o)
		}
		return value{text: text}, nil
	}
	bytes, ok := parseSize(text)
	if !ok || bytes < o.least || bytes > o.most || bytes&(bytes-1) != 0 {
		return value{}, fmt.Errorf("%s=%s is not possible: use a power of two in %s", o.name, text, o.allowed())
	}
	return value{text: text, bytes: bytes}, nil
}
