package convert

// Companion is a further file that belongs beside that of a target, which names
// it. It is complete before the target's file appears.
type Companion struct {
	// Suffix follows the [Stem] of the target's file: "-flat.vmdk".
	Suffix string
	Target Target
}

// hasCompanions is implemented by targets that are more than one file.
type hasCompanions interface{ companions() []Companion }

// Companions returns the further files of t; most targets have none.
func Companions(t Target) []Companion {
	if t, ok := t.(hasCompanions); ok {
		return t.companions()
	}
	return nil
}

// CompanionSuffixes returns the suffixes of [Companions] of a target of the
// spec, in their order, before there is one.
func (s Spec) CompanionSuffixes() []string {
	f, v, err := s.resolve()
	if err != nil || f.companions == nil {
		return nil
	}
	return f.companions(v)
}
