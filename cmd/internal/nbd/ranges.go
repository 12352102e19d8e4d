package nbd

import "slices"

// maxRanges is how many separate pieces of one read may be there at a time. Only
// a server that sends them in random order comes near it.
const maxRanges = 1024

// ranges are the parts of a read that have come, in bytes from its beginning:
// sorted, and neither touching nor overlapping.
type ranges []span

// span is [start, end).
type span struct{ start, end int64 }

// add notes the bytes [start, end). It says false when some of them have come
// already, or when there are too many pieces.
func (r *ranges) add(start, end int64) bool {
	i, _ := slices.BinarySearchFunc(*r, start, func(s span, start int64) int {
		if s.end < start {
			return -1
		}
		return 1
	})
	// i is the first range that ends at start or after it.
	s := *r
	joined, j := span{start, end}, i
	if j < len(s) && s[j].end == start {
		joined.start = s[j].start
		j++
	}
	if j < len(s) && s[j].start < end {
		return false
	}
	if j < len(s) && s[j].start == end {
		joined.end = s[j].end
		j++
	}
	*r = slices.Replace(s, i, j, joined)
	return len(*r) <= maxRanges
}

// whole says whether all of length bytes have come.
func (r ranges) whole(length int64) bool {
	return length == 0 || len(r) == 1 && r[0] == span{0, length}
}
