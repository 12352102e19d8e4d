package fs

import (
	"testing"

	"flatimg/layers"
)

func TestSlotsOf(t *testing.T) {
	at := func(off, length int64) layers.Segment {
		return layers.Segment{Origin: layers.InFile, Offset: off, Length: length}
	}
	zeros := func(length int64) layers.Segment { return layers.Segment{Length: length} }
	for name, test := range map[string]struct {
		segments []layers.Segment
		want     int64
	}{
		"none":               {nil, 0},
		"one byte":           {[]layers.Segment{at(0, 1)}, 1},
		"a page":             {[]layers.Segment{at(pageSize, pageSize)}, 1},
		"over a page's end":  {[]layers.Segment{at(pageSize-1, 2)}, 2},
		"unaligned page":     {[]layers.Segment{at(1, pageSize)}, 2},
		"zeros and a byte":   {[]layers.Segment{zeros(pageSize + 1), at(0, 1)}, 3},
		"many small pieces":  {[]layers.Segment{at(0, 512), zeros(512), at(512, 512)}, 3},
		"literal":            {[]layers.Segment{{Origin: layers.Literal, Length: 2 * pageSize}}, 2},
		"largest, unaligned": {[]layers.Segment{at(512, maxRead)}, maxRead/pageSize + 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := slotsOf(test.segments); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

func TestReplySlots(t *testing.T) {
	for n, want := range map[int64]int64{
		1:                       1,
		pageSize - 16:           1,
		pageSize:                3,
		14*pageSize - 16:        15,
		15*pageSize - 16:        15,
		15 * pageSize:           31,
		128 << 10:               128<<10/pageSize*2 - 1,
		maxRead:                 maxRead/pageSize*2 - 1,
		maxRead - pageSize - 16: maxRead/pageSize - 1,
	} {
		if got := replySlots(n); got != want {
			t.Errorf("replySlots(%d) = %d, want %d", n, got, want)
		}
	}
	// A reply from one aligned range always fits.
	for n := int64(1); n <= maxRead; n++ {
		if pages(n) > replySlots(n) {
			t.Fatalf("%d bytes take %d slots, there are %d", n, pages(n), replySlots(n))
		}
	}
}
