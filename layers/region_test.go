package layers

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"flatimg/layers/volume"
)

// fakeVolume says for each sector of a disk what it has there.
type fakeVolume struct {
	sectors []volume.Run // each of length sector
	asked   [][2]int64   // ranges given to AppendRuns
	fails   [2]int64     // AppendRuns fails when it touches this range
	file    *volume.File
	mu      sync.Mutex
	inflate int
}

const sector = 512

var errFake = errors.New("fake error")

func (v *fakeVolume) Format() string             { return "fake" }
func (v *fakeVolume) Size() int64                { return int64(len(v.sectors)) * sector }
func (v *fakeVolume) Files() []*volume.File      { return []*volume.File{v.file} }
func (v *fakeVolume) Close() error               { return nil }
func (v *fakeVolume) ClusterSize() int64         { return sector }
func (v *fakeVolume) EmptyUntil(off int64) int64 { return off }

func (v *fakeVolume) Inflate(dst []byte, host, _ int64) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inflate++
	binary.BigEndian.PutUint64(dst, uint64(host))
	return nil
}

func (v *fakeVolume) AppendRuns(dst []volume.Run, off, length int64) ([]volume.Run, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = append(v.asked, [2]int64{off, length})
	if off < v.fails[1] && off+length > v.fails[0] {
		return nil, errFake
	}
	for length > 0 {
		r := v.sectors[off/sector]
		if skip := off % sector; r.Kind != volume.Compressed && r.Host != volume.NoHost {
			r.Host += skip
		}
		r.Length = min(length, sector-off%sector)
		dst = append(dst, r)
		off, length = off+r.Length, length-r.Length
	}
	return dst, nil
}

// randomVolume has runs of random kinds.
func randomVolume(rng *rand.Rand, sectors int) *fakeVolume {
	v := &fakeVolume{}
	for len(v.sectors) < sectors {
		r := volume.Run{Host: volume.NoHost}
		switch rng.IntN(6) {
		case 0:
			r.Kind = volume.Zero
		case 1:
			r.Kind, r.Host = volume.Data, int64(rng.IntN(1<<20))*sector
		case 2:
			r.Kind, r.Host, r.Stored = volume.Compressed, int64(rng.IntN(1<<20)), 100
		}
		for range 1 + rng.IntN(8) {
			v.sectors = append(v.sectors, r)
			switch r.Kind {
			case volume.Data:
				r.Host += sector
			case volume.Compressed:
				r.Host += 100
			}
		}
	}
	v.sectors = v.sectors[:sectors]
	return v
}

func fakeImage(volumes ...*fakeVolume) *Image {
	im := &Image{cache: NewCache(0, 0), resolving: make(chan struct{}, maxResolving)}
	for _, v := range volumes {
		im.layers = append(im.layers, Layer{Volume: v})
	}
	im.size = volumes[len(volumes)-1].Size()
	return im
}

// naive is what the top layer that has a sector says of it.
func naive(im *Image, off int64) Extent {
	for i := len(im.layers) - 1; i >= 0; i-- {
		v := im.layers[i].Volume.(*fakeVolume)
		if off >= v.Size() {
			return Extent{Layer: i, Kind: volume.Zero, Host: volume.NoHost}
		}
		r := v.sectors[off/sector]
		if r.Kind == volume.Hole {
			continue
		}
		e := Extent{Layer: i, Kind: r.Kind, Host: r.Host, Stored: r.Stored}
		if r.Kind == volume.Data {
			e.Host += off % sector
		}
		return e
	}
	return Extent{Layer: -1, Kind: volume.Hole, Host: volume.NoHost}
}

// TestMergeAgainstNaive compares the merged map of random layers of random
// sizes with a look through the layers sector by sector.
func TestMergeAgainstNaive(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var volumes []*fakeVolume
		for range 1 + rng.IntN(6) {
			volumes = append(volumes, randomVolume(rng, 1+rng.IntN(200)))
		}
		im := fakeImage(volumes...)
		for range 20 {
			off := rng.Int64N(im.size)
			length := 1 + rng.Int64N(im.size-off)
			at := off
			for e, err := range im.Extents(off, length) {
				if err != nil {
					t.Fatal(err)
				}
				if e.Offset != at {
					t.Fatalf("seed %d: extent at %#x, want %#x", seed, e.Offset, at)
				}
				for p := e.Offset; p < e.Offset+e.Length; p += sector - p%sector {
					want := naive(im, p)
					want.Offset, want.Length = e.Offset, e.Length
					got := e
					got.Host = hostAfter(e.Kind, e.Host, p-e.Offset)
					if got != want {
						t.Fatalf("seed %d: at %#x %+v, want %+v", seed, p, got, want)
					}
				}
				at += e.Length
			}
			if at != off+length {
				t.Fatalf("seed %d: extents of [%#x, +%#x) end at %#x", seed, off, length, at)
			}
		}
	}
}

// TestLayersAreAskedOnce: a region is resolved once, and a layer only where
// those above it leave holes.
func TestLayersAreAskedOnce(t *testing.T) {
	base := &fakeVolume{sectors: make([]volume.Run, 100)}
	top := &fakeVolume{sectors: make([]volume.Run, 100)}
	for i := range top.sectors {
		base.sectors[i] = volume.Run{Kind: volume.Zero, Host: volume.NoHost}
		if i < 40 || i >= 60 {
			top.sectors[i] = volume.Run{Kind: volume.Zero, Host: volume.NoHost}
		}
	}
	im := fakeImage(base, top)
	for range 3 {
		for range im.Extents(0, MaxLength) {
		}
		if _, err := im.AppendSegments(nil, 50*sector, 10); err != nil {
			t.Fatal(err)
		}
	}
	if want := [][2]int64{{0, 100 * sector}}; fmt.Sprint(top.asked) != fmt.Sprint(want) {
		t.Errorf("the top was asked %v, want %v", top.asked, want)
	}
	if want := [][2]int64{{40 * sector, 20 * sector}}; fmt.Sprint(base.asked) != fmt.Sprint(want) {
		t.Errorf("the base was asked %v, want %v", base.asked, want)
	}
}

// TestErrorsStayLocal: a bad entry spoils the reads that touch it and no other.
func TestErrorsStayLocal(t *testing.T) {
	v := &fakeVolume{sectors: make([]volume.Run, 100), fails: [2]int64{50 * sector, 51 * sector}}
	im := fakeImage(v)
	p := make([]byte, sector)
	for i := range int64(100) {
		_, err := im.ReadAt(p, i*sector)
		if (err != nil) != (i == 50) || err != nil && !(errors.Is(err, errFake) && errors.Is(err, ErrSource)) {
			t.Errorf("sector %d: %v", i, err)
		}
	}
}

// TestInflateOnce: readers of one cluster, at the same time or in small steps,
// inflate it once.
func TestInflateOnce(t *testing.T) {
	v := &fakeVolume{sectors: []volume.Run{{Kind: volume.Compressed, Host: 77, Stored: 5}}}
	im := fakeImage(v)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for off := range int64(sector / 8) {
				p := make([]byte, 8)
				if _, err := im.ReadAt(p, off*8); err != nil {
					t.Error(err)
				}
				if off == 0 && binary.BigEndian.Uint64(p) != 77 {
					t.Errorf("read %x", p)
				}
			}
		})
	}
	wg.Wait()
	if v.inflate != 1 {
		t.Errorf("inflated %d times", v.inflate)
	}
}

// TestSegments checks the segments of all origins, merged where they continue
// each other, and that a part of a segment reads as that part.
func TestSegments(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	content := make([]byte, 64*sector)
	for i := range content {
		content[i] = byte(i*7 + i>>8)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := volume.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	noHost := func(k volume.Kind) volume.Run { return volume.Run{Kind: k, Host: volume.NoHost} }
	data := func(i int64) volume.Run { return volume.Run{Kind: volume.Data, Host: i * sector} }
	im := fakeImage(&fakeVolume{file: file, sectors: []volume.Run{
		noHost(volume.Hole), noHost(volume.Zero), data(3), data(4), data(9),
		{Kind: volume.Compressed, Host: 1, Stored: 9}, noHost(volume.Zero),
	}})
	segments, err := im.AppendSegments(make([]Segment, 1), 100, im.size-200)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range segments[1:] {
		got = append(got, fmt.Sprintf("%d+%d@%d", s.Origin, s.Length, s.Offset))
	}
	want := []string{"0+924@0", "2+1024@1536", "2+512@4608", "3+512@0", "0+412@0"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("segments %v, want %v", got, want)
	}
	for _, s := range segments[1:] {
		whole := make([]byte, s.Length)
		part := make([]byte, s.Length-20)
		if err := errors.Join(s.ReadInto(whole), s.Slice(7, s.Length-13).ReadInto(part)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(whole[7:s.Length-13], part) {
			t.Errorf("a slice of the segment of origin %d reads differently", s.Origin)
		}
	}
}

// TestRegionBorders reads a map of several regions.
func TestRegionBorders(t *testing.T) {
	im := fakeImage(&fakeVolume{})
	im.layers[0].Volume = &bigVolume{size: 5*regionSize + 1024}
	im.size = 5*regionSize + 1024
	n := 0
	for e, err := range im.Extents(regionSize-sector, MaxLength) {
		if err != nil || e.Kind != volume.Data || e.Offset != regionSize-sector || e.Host != e.Offset {
			t.Errorf("extent %+v, %v", e, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d extents across regions, want 1", n)
	}
}

// bigVolume is one run of data.
type bigVolume struct {
	fakeVolume
	size int64
}

func (v *bigVolume) Size() int64 { return v.size }
func (v *bigVolume) AppendRuns(dst []volume.Run, off, length int64) ([]volume.Run, error) {
	return append(dst, volume.Run{Length: length, Kind: volume.Data, Host: off}), nil
}

func BenchmarkExtents(b *testing.B) {
	for _, depth := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("layers=%d", depth), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 1))
			var volumes []*fakeVolume
			for range depth {
				volumes = append(volumes, randomVolume(rng, 2048))
			}
			im := fakeImage(volumes...)
			var few [16]Segment
			b.ReportAllocs()
			for b.Loop() {
				off := rng.Int64N(im.size - 4096)
				if _, err := im.AppendSegments(few[:0], off, 4096); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
