package fs

import (
	"slices"
	"strconv"
	"strings"
	"unicode"

	"flatimg/convert"
	"flatimg/layers/volume"
)

// nameMax is the longest name in bytes that system calls take (limits.h).
const nameMax = 255

// imageExtensions are cut off a file's name to name its views. A file in a
// source directory that has one is an image.
var imageExtensions = []string{
	".qcow2", ".qcow", ".qed", ".img", ".raw", ".iso",
	".vmdk", ".vdi", ".vhd", ".vpc", ".vhdx", ".avhd", ".avhdx",
}

// stem returns a file name without its image extension, and whether it has one.
func stem(file string) (string, bool) {
	lower := strings.ToLower(file)
	for _, ext := range imageExtensions {
		if strings.HasSuffix(lower, ext) && len(file) > len(ext) {
			return file[:len(file)-len(ext)], true
		}
	}
	return file, false
}

// nameWish is what the name of a view is made from.
type nameWish struct {
	// file is the image's file name.
	file string
	// source is the position of its source on the command line, from 1.
	source int
	// snapshot is the label of an internal snapshot with its '@', or empty.
	snapshot string
	// suffix says the target format: ".raw".
	suffix string
}

// name returns the name of a step; each following one tells apart what the one
// before did not. The steps end with false.
func (w nameWish) name(step int) (string, bool) {
	switch step {
	case 0:
		s, _ := stem(w.file)
		return s + w.snapshot + w.suffix, true
	case 1:
		return w.file + w.snapshot + w.suffix, true
	case 2:
		return w.file + "~" + strconv.Itoa(w.source) + w.snapshot + w.suffix, true
	}
	return "", false
}

// assignNames returns a name for each wish, all different and independent of
// the wishes' order; an empty one where there is none.
func assignNames(wishes []nameWish) []string {
	names := make([]string, len(wishes))
	steps := make([]int, len(wishes))
	for i, w := range wishes {
		names[i], _ = w.name(0)
	}
	for {
		users := make(map[string]int, len(names))
		for _, n := range names {
			users[n]++
		}
		again := false
		for i, w := range wishes {
			if n := names[i]; n == "" || users[n] == 1 {
				continue
			}
			steps[i]++
			names[i], _ = w.name(steps[i])
			again = true
		}
		if !again {
			break
		}
	}
	for i, n := range names {
		if len(n) > nameMax {
			names[i] = ""
		}
	}
	return names
}

// snapshotLabels returns what follows the image's name for each snapshot.
func snapshotLabels(snapshots []volume.Snapshot) []string {
	labels := make([]string, len(snapshots))
	users := make(map[string]int, len(snapshots))
	for i, s := range snapshots {
		labels[i] = sanitise(s.Name)
		users[labels[i]]++
	}
	for i, s := range snapshots {
		switch l := labels[i]; {
		case l == "":
			labels[i] = sanitise(s.ID)
		case users[l] > 1:
			labels[i] = l + "~" + sanitise(s.ID)
		}
		labels[i] = "@" + labels[i]
	}
	return labels
}

// sanitise replaces what can't be or should not be in a file name.
func sanitise(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == unicode.ReplacementChar || unicode.IsControl(r) {
			return '_'
		}
		return r
	}, name)
}

// formatSuffixes returns the end of the names of views in each format: its
// extension, with its options before it where the extension does not tell.
func formatSuffixes(formats []convert.Spec) []string {
	users := make(map[string]int)
	for _, f := range formats {
		users[f.Extension()]++
	}
	suffixes := make([]string, len(formats))
	for i, f := range formats {
		suffixes[i] = f.Extension()
		if users[suffixes[i]] > 1 {
			suffixes[i] = sanitise(strings.TrimPrefix(f.String(), f.Format)) + suffixes[i]
		}
	}
	return suffixes
}

// uniqueFormats drops formats that are given twice.
func uniqueFormats(formats []convert.Spec) []convert.Spec {
	seen := make(map[string]bool)
	return slices.DeleteFunc(slices.Clone(formats), func(f convert.Spec) bool {
		s := f.String()
		defer func() { seen[s] = true }()
		return seen[s]
	})
}
