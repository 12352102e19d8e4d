package convert

import "flatimg/layers"

// Measurement is what a target will take, in bytes.
type Measurement struct {
	// Required is the exact size of the target file.
	Required int64
	// FullyAllocated is its size if every cluster of the disk held data.
	FullyAllocated int64
}

// Measure returns the sizes of im in the format of spec, without reading data.
// It fails as [New] does.
func Measure(im *layers.Image, spec Spec) (Measurement, error) { return measure(im, spec) }

func measure(src source, spec Spec) (Measurement, error) {
	f, v, err := spec.resolve()
	if err != nil {
		return Measurement{}, err
	}
	t, err := f.layout(src, v)
	if err != nil {
		return Measurement{}, err
	}
	return Measurement{Required: t.Size(), FullyAllocated: f.full(src.Size(), v)}, nil
}
