package convert

import (
	"fmt"
	"slices"
	"strings"
)

// option of a target format: one of its choices, a text, or, when it is neither,
// a size that is a power of two.
type option struct {
	name    string // QEMU's name of it
	alias   string // another name that it is taken under, or empty
	initial string // the default
	choices []string
	// what a text is, for people; isText checks it. Nil: not a text.
	what   string
	isText func(string) bool
	// least and most are the limits of a size, in bytes; auto says that 0 is
	// possible, too: the format chooses.
	least, most int64
	auto        bool
	about       string // what it does, for people, in a few words
}

// uuidOption sets the identifier of the disk.
var uuidOption = option{
	name: "uuid", what: "01234567-89ab-cdef-0123-456789abcdef",
	isText: func(text string) bool { _, ok := parseUUID(text); return ok || text == "" },
	about:  "identifier of the disk; default: derived from image and options",
}

// onOff are the choices of a switch.
var onOff = []string{"on", "off"}

// value of an option.
type value struct {
	text  string // as given
	bytes int64  // of a size; 0 for a choice
	given bool   // by the user, not the default
}

// values of a format's options, by name.
type values map[string]value

// String says how the option is written: "compat=0.10|1.1".
func (o option) String() string { return o.name + "=" + o.allowed() }

func (o option) allowed() string {
	switch {
	case o.isText != nil:
		return o.what
	case len(o.choices) > 0:
		return strings.Join(o.choices, "|")
	case o.auto:
		return "0|" + sizeText(o.least) + ".." + sizeText(o.most)
	}
	return sizeText(o.least) + ".." + sizeText(o.most)
}

// value returns the option's value: that among the texts which a user has given
// by name, else its default.
func (o option) value(texts map[string]string) (value, error) {
	text, given := texts[o.name]
	if other, ok := texts[o.alias]; ok && o.alias != "" {
		if given {
			return value{}, fmt.Errorf("%s and %s are the same option: give one of them", o.name, o.alias)
		}
		text, given = other, true
	}
	if !given {
		text = o.initial
	}
	v, err := o.parse(text)
	v.given = given
	return v, err
}

func (o option) parse(text string) (value, error) {
	if o.isText != nil {
		if !o.isText(text) {
			return value{}, fmt.Errorf("%s=%s is not possible: use %s", o.name, text, o.what)
		}
		return value{text: text}, nil
	}
	if len(o.choices) > 0 {
		if !slices.Contains(o.choices, text) {
			return value{}, fmt.Errorf("%s=%s is not possible: use %s", o.name, text, o)
		}
		return value{text: text}, nil
	}
	bytes, ok := parseSize(text)
	if ok && o.auto && bytes == 0 {
		return value{text: text}, nil
	}
	if !ok || bytes < o.least || bytes > o.most || bytes&(bytes-1) != 0 {
		return value{}, fmt.Errorf("%s=%s is not possible: use a power of two in %s", o.name, text, o.allowed())
	}
	return value{text: text, bytes: bytes}, nil
}
