package convert

// Measurement is what a target will take, in bytes.
type Measurement struct {
	// Required is the exact size of the target file, with its companions.
	Required int64
	// FullyAllocated is that if every cluster of the disk held data.
	FullyAllocated int64
	// GuestSize is the virtual size that the target states: that of the disk,
	// rounded up as the format wants it.
	GuestSize int64
	// AtMost: the target is packed, so that Required and FullyAllocated are
	// upper bounds.
	AtMost bool
}

// Measure returns the sizes of a disk in the format of spec, without reading
// data. It fails as [New] and [NewPacker] do.
func Measure(src Disk, spec Spec) (Measurement, error) {
	f, v, err := spec.resolve()
	if err != nil {
		return Measurement{}, err
	}
	if src, err = growAsAsked(src, spec.VirtualSize); err != nil {
		return Measurement{}, err
	}
	m := Measurement{AtMost: f.packs != nil && f.packs(v)}
	if m.AtMost {
		p, err := f.pack(src, v)
		if err != nil {
			return Measurement{}, err
		}
		m.Required, m.GuestSize = p.Bound(), p.GuestSize()
	} else {
		t, err := f.layout(src, v)
		if err != nil {
			return Measurement{}, err
		}
		m.Required = t.Size()
		m.GuestSize = GuestSize(t)
		for _, c := range Companions(t) {
			m.Required += c.Target.Size()
		}
	}
	m.FullyAllocated = f.full(src.Size(), v)
	return m, nil
}
