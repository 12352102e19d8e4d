package convert

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// blockTargets are the formats that a [parsedImage] describes.
var blockTargets = []struct {
	spec  string
	qemu  string // QEMU's name of the format
	parse func(testing.TB, Target) *parsedImage
	// unit in bytes that the virtual size is rounded up to; 0: a geometry.
	unit int64
	most int64 // virtual size in bytes
}{
	{"vmdk", "vmdk", parseVMDK, 512, maxVMDKDisk},
	{"vdi", "vdi", parseVDI, 512, maxVDIDisk},
	{"vdi,subformat=static", "vdi", parseVDI, 512, maxVDIDisk},
	{"vhd", "vpc", parseVHD, 0, maxVHDDisk},
	{"vhd,force_size=on", "vpc", parseVHD, 512, maxVHDDisk},
	{"vhd,subformat=fixed", "vpc", parseVHD, 0, maxVHDDisk},
	{"vhd,subformat=fixed,force_size=on", "vpc", parseVHD, miB, maxVHDDisk},
	{"vhdx", "vhdx", parseVHDX, miB, maxVHDXDisk},
	{"vhdx,subformat=fixed", "vhdx", parseVHDX, miB, maxVHDXDisk},
	{"vhdx,block_size=8M", "vhdx", parseVHDX, miB, maxVHDXDisk},
	{"vhdx,block_size=256M,block_state_zero=off", "vhdx", parseVHDX, miB, maxVHDXDisk},
}

// conformanceDisk is a disk that each format lays out.
type conformanceDisk struct {
	name string
	disk *disk
}

// smallDisks fit into memory in any format, but for blocks of 256 MiB.
func smallDisks() []conformanceDisk {
	return []conformanceDisk{
		{"size-zero", newDisk(0)},
		{"one-byte", newDisk(1, Run{0, 1})},
		{"one-sector", newDisk(512, Run{0, 512})},
		{"one-block-1M", newDisk(miB, Run{0, miB})},
		{"one-block-2M", newDisk(2*miB, Run{2*miB - 1, 1})},
		{"empty", newDisk(9 * miB)},
		{"full", newDisk(9*miB, Run{0, 9 * miB})},
		{"boundaries-1M", newDisk(14*miB, boundaryRuns(14*miB, miB)...)},
		{"boundaries-2M", newDisk(23*miB, boundaryRuns(23*miB, 2*miB)...)},
		{"last-partial", newDisk(6*miB+512, Run{6 * miB, 512})},
		{"odd-size", newDisk(5*miB+77, Run{5, 700000}, Run{5*miB + 70, 7})},
		{"scattered", randomDisk(20*miB, 1, 300000, 3*miB)},
	}
}

// largeDisks are sparse.
func largeDisks() []conformanceDisk {
	return []conformanceDisk{
		{"5G", newDisk(5*giB+512, Run{4*giB - 1, 2}, Run{5*giB + 511, 1})},
		{"2040G", newDisk(2040*giB, Run{0, 1}, Run{127*giB - 1, 3}, Run{2040*giB - 1, 1})},
		{"3T", newDisk(3*tiB, Run{1, 1}, Run{2*tiB - 1, 2}, Run{3*tiB - 1, 1})},
		{"64T", newDisk(64*tiB, Run{32*tiB - 1, 2}, Run{64*tiB - 1, 1})},
		{"8T-scattered", randomDisk(8*tiB, 5, 100*kiB, 80*giB)},
	}
}

// edges are the offsets at which something starts or ends in a target.
func edges(target Target) []int64 {
	edges := []int64{0, target.Size()}
	var a *assembly
	switch t := target.(type) {
	case *vmdkSparse:
		a = &t.assembly
	case *vdi:
		a = &t.assembly
	case *vhd:
		a = &t.assembly
	case *vhdx:
		a = &t.assembly
	case *assembly:
		a = t
	default:
		return edges
	}
	for _, s := range append(a.head, a.tail...) {
		edges = append(edges, s.start, s.used, s.end)
	}
	for _, n := range []int64{miB, 2 * miB, vhdAlign - vhdBitmapSize, vhdAlign, vhdStride, 2 * vhdStride, 5 * vhdStride} {
		edges = append(edges, a.bodyStart()+n)
	}
	return edges
}

func TestBlockTargets(t *testing.T) {
	for _, c := range blockTargets {
		for _, d := range smallDisks() {
			t.Run(c.spec+"/"+d.name, func(t *testing.T) {
				target := build(t, d.disk, c.spec)
				p := c.parse(t, target)
				checkGuestSize(t, d.disk, target, p.disk, c.unit)
				p.checkAll(t, d.disk, target)
				if target.Size() < 40*miB {
					whole := read(t, target, 0, target.Size())
					checkRanges(t, target, whole, edges(target))
					checkRuns(t, target)
					if again := build(t, d.disk, c.spec); !bytes.Equal(read(t, again, 0, again.Size()), whole) {
						t.Error("a second layout differs")
					}
				}
				spec, _ := ParseSpec(c.spec)
				full := newDisk(d.disk.size, Run{0, d.disk.size})
				if d.disk.size == 0 {
					full = newDisk(0)
				}
				want := Measurement{target.Size(), build(t, full, c.spec).Size(), p.disk, false}
				if m, err := Measure(d.disk, spec); err != nil || m != want {
					t.Errorf("measure = %+v, %v, want %+v", m, err, want)
				}
			})
		}
	}
}

// checkGuestSize checks that got is the size of d rounded up to unit.
func checkGuestSize(t testing.TB, d *disk, target Target, got, unit int64) {
	t.Helper()
	if got != GuestSize(target) || got < d.size {
		t.Fatalf("virtual size %d of a disk of %d bytes, GuestSize says %d", got, d.size, GuestSize(target))
	}
	want := (d.size + max(unit, 1) - 1) / max(unit, 1) * unit
	if unit != 0 && got != want && d.size > 0 {
		t.Fatalf("virtual size %d of a disk of %d bytes, want %d", got, d.size, want)
	}
}

func TestBlockTargetsLarge(t *testing.T) {
	for _, c := range blockTargets {
		for _, d := range largeDisks() {
			if d.disk.size > c.most || c.parse(t, build(t, newDisk(1), c.spec)).block > 64*miB {
				continue
			}
			t.Run(c.spec+"/"+d.name, func(t *testing.T) {
				target := build(t, d.disk, c.spec)
				p := c.parse(t, target)
				checkGuestSize(t, d.disk, target, p.disk, c.unit)
				if p.blocks > 1 {
					p.checkSome(t, d.disk, target)
					return
				}
				for _, r := range d.disk.dataRuns() { // a fixed VHD
					if got := read(t, target, r.Offset, r.Length); !bytes.Equal(got, pattern(r.Offset, r.Length)) {
						t.Errorf("%d bytes at %#x differ", r.Length, r.Offset)
					}
				}
			})
		}
	}
}

func TestBlockTargetLimits(t *testing.T) {
	for _, c := range blockTargets {
		t.Run(c.spec, func(t *testing.T) {
			build(t, newDisk(c.most, Run{c.most - 1, 1}), c.spec)
			spec, _ := ParseSpec(c.spec)
			for _, size := range []int64{c.most + 1, 1<<63 - 512, 1<<63 - 1} {
				_, err := New(sizeOnly{size: size}, spec)
				limit, ok := errors.AsType[*LimitError](err)
				if !ok {
					t.Fatalf("%d bytes: %v", size, err)
				}
				if size < 1<<60 {
					if limit.Fits == "" {
						t.Errorf("%v: nothing fits", err)
					}
					build(t, newDisk(size), limit.Fits)
				}
			}
		})
	}
}

func TestIdentifiers(t *testing.T) {
	const given = "01234567-89ab-cdef-0123-456789ABCDEF"
	want := knownUUID(given)
	seen := make(map[uuid]string)
	for _, c := range blockTargets {
		for _, d := range smallDisks()[3:5] {
			id := c.parse(t, build(t, d.disk, c.spec)).id
			name := fmt.Sprintf("%s of %s", c.spec, d.name)
			if other, ok := seen[id]; ok {
				t.Errorf("%s and %s have the same UUID", name, other)
			}
			seen[id] = name
			if id[6]>>4 != 8 || id[8]>>6 != 2 {
				t.Errorf("%s has UUID %x", name, id)
			}
			if id := c.parse(t, build(t, d.disk, c.spec+",uuid="+given)).id; id != want {
				t.Errorf("%s has UUID %x", name, id)
			}
		}
	}
	for _, text := range []string{"1", given + "0", given[1:], "g" + given[1:], "{" + given + "}", given[:35] + "-", "012345678-9ab-cdef-0123-456789abcdef"} {
		if s, err := ParseSpec("vdi,uuid=" + text); err == nil {
			t.Errorf("%+v is possible", s)
		}
	}
}

// FuzzBlockTargets lays out a disk whose runs of data are pairs of bytes, gaps
// and lengths, and reads it back.
func FuzzBlockTargets(f *testing.F) {
	f.Add(uint8(0), uint32(100000), []byte{0, 1, 9, 200, 0, 255, 50, 50})
	f.Add(uint8(2), uint32(7<<20), []byte{255, 255, 255, 255, 255, 1})
	f.Add(uint8(4), uint32(3<<20+1), []byte{200, 1, 20, 255})
	f.Add(uint8(6), uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, which uint8, size uint32, gaps []byte) {
		total := int64(size) % (12 << 20)
		d := fuzzDisk(total, gaps, 40)
		c := blockTargets[int(which)%(len(blockTargets)-1)] // without 256 MiB
		target := build(t, d, c.spec)
		p := c.parse(t, target)
		checkGuestSize(t, d, target, p.disk, c.unit)
		p.checkAll(t, d, target)
		checkRuns(t, target)
	})
}
