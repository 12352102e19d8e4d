package fs

import (
	"slices"
	"testing"
)

func TestFindTops(t *testing.T) {
	// Each case lists files with the number of the file that backs them; 0:
	// none. The number of a file is its position, from 1.
	for name, test := range map[string]struct{ backing, want []int }{
		"one":                   {[]int{0}, []int{1}},
		"chain":                 {[]int{0, 1, 2}, []int{3}},
		"two tops on one base":  {[]int{0, 1, 1}, []int{2, 3}},
		"backing elsewhere":     {[]int{99, 1}, []int{2}},
		"backed by itself":      {[]int{1}, []int{1}},
		"circle":                {[]int{2, 1, 0}, []int{1, 2, 3}},
		"top over a circle":     {[]int{2, 1, 1}, []int{3}},
		"circle beside a chain": {[]int{0, 1, 4, 3}, []int{2, 3, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			id := func(n int) fileID { return fileID{dev: 1, ino: uint64(n)} }
			var candidates []candidate
			for i, b := range test.backing {
				f := &scannedFile{isImage: true}
				f.state.id = id(i + 1)
				if b != 0 {
					f.backing = id(b)
				}
				candidates = append(candidates, candidate{file: f})
			}
			var got []int
			cannotOpen := func(candidate) []fileID { return nil }
			for _, c := range findTops(candidates, cannotOpen) {
				got = append(got, int(c.file.state.id.ino))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestFindTopsHidesNothing has a raw disk in which a guest wrote a header that
// claims another image as its backing file.
func TestFindTopsHidesNothing(t *testing.T) {
	file := func(ino, backing uint64) candidate {
		f := &scannedFile{isImage: true}
		f.state.id = fileID{1, ino}
		if backing != 0 {
			f.backing = fileID{1, backing}
		}
		return candidate{file: f}
	}
	victim, disk, top := file(1, 0), file(2, 1), file(3, 2)
	opened := func(c candidate) []fileID {
		if c == top {
			return []fileID{disk.file.state.id, top.file.state.id}
		}
		return []fileID{c.file.state.id}
	}
	got := findTops([]candidate{victim, disk, top}, opened)
	if want := []candidate{victim, top}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
