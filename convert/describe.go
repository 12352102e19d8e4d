package convert

// FormatInfo tells people about a target format.
type FormatInfo struct {
	Name string
	// Alias is QEMU's name of it, where that is another one.
	Alias string
	// Extension of the file name, with the dot.
	Extension string
	// About is what it is, in a few words.
	About string
	// Largest is the virtual size that it can hold; empty when there is no
	// limit.
	Largest string
	// Packed: a file of the format can't be shown in a mount, only exported;
	// see [Spec.Packed].
	Packed  bool
	Options []OptionInfo
}

// OptionInfo tells people about an option of a target format.
type OptionInfo struct {
	Name string
	// Values that are possible: "A|B", or "LEAST..MOST" for a size, which is a
	// power of two.
	Values string
	// Default value; empty when it is derived.
	Default string
	// Packed are those of the values that make it a file that can't be shown
	// in a mount.
	Packed []string
	// About is what it does, in a few words.
	About string
}

// Describe returns what there is to know about each target format, in the order
// of [Formats].
func Describe() []FormatInfo {
	infos := make([]FormatInfo, len(formats))
	for i, f := range formats {
		infos[i] = FormatInfo{
			Name:      f.name,
			Alias:     f.alias,
			Extension: f.extension,
			About:     f.about,
			Largest:   f.largest,
			Packed:    Spec{Format: f.name}.Packed(),
		}
		for _, o := range f.options {
			infos[i].Options = append(infos[i].Options, OptionInfo{o.name, o.allowed(), o.initial, f.packedBy(o), o.about})
		}
	}
	return infos
}

// packedBy returns those choices of o that make a file packed which is not so
// by default.
func (f format) packedBy(o option) []string {
	if (Spec{Format: f.name}).Packed() {
		return nil
	}
	var packed []string
	for _, choice := range o.choices {
		if (Spec{Format: f.name, Options: map[string]string{o.name: choice}}).Packed() {
			packed = append(packed, choice)
		}
	}
	return packed
}
