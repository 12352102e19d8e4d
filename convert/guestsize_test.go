package convert

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"flatimg/layers"
)

func TestVirtualSize(t *testing.T) {
	d := newDisk(3*miB+512, Run{100, 5000}, Run{3 * miB, 512})
	for _, name := range Formats() {
		if (Spec{Format: name}).Packed() {
			continue
		}
		for _, size := range []int64{d.size, d.size + 512, 8 * miB, 3 * giB} {
			spec := Spec{Format: name, VirtualSize: size}
			target, err := New(d, spec)
			if err != nil {
				t.Fatal(err)
			}
			m, err := Measure(d, spec)
			if err != nil || m.GuestSize < size || m.GuestSize != GuestSize(target) || m.Required != target.Size() {
				t.Errorf("%s of %d bytes: measure = %+v, %v", name, size, m, err)
			}
		}
		for _, size := range []int64{d.size - 512, d.size + 1, -512} {
			_, err := New(d, Spec{Format: name, VirtualSize: size})
			if _, ok := errors.AsType[*SpecError](err); !ok {
				t.Errorf("%s of %d bytes: %v", name, size, err)
			}
			if _, err := Measure(d, Spec{Format: name, VirtualSize: size}); err == nil {
				t.Errorf("%s of %d bytes is measured", name, size)
			}
		}
	}
	target, err := New(d, Spec{Format: "raw", VirtualSize: 5 * miB})
	if err != nil {
		t.Fatal(err)
	}
	whole := read(t, target, 0, target.Size())
	if !bytes.Equal(whole, d.read(0, 5*miB)) {
		t.Error("a grown disk differs")
	}
	checkRanges(t, target, whole, []int64{0, d.size, target.Size()})
	checkRuns(t, target)
}

func TestGrownExtents(t *testing.T) {
	d := newDisk(1000, Run{10, 990})
	g := grow(d, 5000)
	if grow(d, 1000) != Disk(d) || grow(d, 0) != Disk(d) {
		t.Error("a disk that is large enough is another one")
	}
	for _, c := range []struct {
		off, length int64
		want        []Run
	}{
		{0, layers.MaxLength, []Run{{0, 10}, {10, 990}, {1000, 4000}}},
		{500, 100, []Run{{500, 100}}},
		{500, 500, []Run{{500, 500}}},
		{999, 2, []Run{{999, 1}, {1000, 1}}},
		{1000, 10, []Run{{1000, 10}}},
		{4999, 10, []Run{{4999, 1}}},
		{5000, 10, nil},
	} {
		var got []Run
		for e, err := range g.Extents(c.off, c.length) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, Run{e.Offset, e.Length})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("extents of [%d, +%d) are %v, want %v", c.off, c.length, got, c.want)
		}
	}
	for range g.Extents(0, 5000) {
		break // must not go on
	}
	if s, err := g.AppendSegments(nil, 4000, 2000); err == nil {
		t.Errorf("segments past the end: %v", s)
	}
}

// An error of the map ends the extents, too.
func TestGrownErrors(t *testing.T) {
	d := newDisk(miB, Run{0, miB})
	n := 0
	for _, err := range grow(broken{d, 1000, miB}, 2*miB).Extents(0, 2*miB) {
		if n++; n == 2 && err == nil || n > 2 {
			t.Errorf("extent %d after an error: %v", n, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	for i, f := range Describe() {
		if f.Name != Formats()[i] || f.Extension != (Spec{Format: f.Name}).Extension() || f.About == "" {
			t.Errorf("%+v", f)
		}
		for _, o := range f.Options {
			if o.About == "" && o.Packed == nil || o.Values == "" {
				t.Errorf("%s: %+v", f.Name, o)
			}
			if _, err := ParseSpec(f.Name + "," + o.Name + "=" + o.Default); err != nil {
				t.Errorf("the default of %s: %v", o.Name, err)
			}
		}
		if f.Alias != "" {
			if s, err := ParseSpec(f.Alias); err != nil || s.Format != f.Name || s.Extension() != f.Extension {
				t.Errorf("%s is %+v, %v", f.Alias, s, err)
			}
		}
	}
}
