package area

import (
	"slices"
	"testing"

	"flatimg/layers"
)

func TestSpans(t *testing.T) {
	const m = 1 << 20
	data := func(n int64) layers.Segment { return layers.Segment{Length: n, Origin: layers.InFile} }
	for _, c := range []struct {
		name     string
		segments []layers.Segment
		want     []span
	}{
		{"nothing", nil, nil},
		{"a hole", []layers.Segment{zeroSegment(m)}, nil},
		{"a byte", []layers.Segment{zeroSegment(m), data(1), zeroSegment(m)}, []span{{m, 1}}},
		{"near runs", []layers.Segment{data(m), zeroSegment(m), data(m)}, []span{{0, 3 * m}}},
		{"far runs", []layers.Segment{data(m), zeroSegment(16 * m), data(m)}, []span{{0, m}, {17 * m, m}}},
		{"a long run", []layers.Segment{zeroSegment(1), data(33 * m)}, []span{{1, 16 * m}, {1 + 16*m, 16 * m}, {1 + 32*m, m}}},
		{"a run across the end", []layers.Segment{data(m), zeroSegment(14 * m), data(2 * m)}, []span{{0, 16 * m}, {16 * m, m}}},
		{"a run at the end", []layers.Segment{data(m), zeroSegment(15 * m), data(m)}, []span{{0, m}, {16 * m, m}}},
	} {
		var got []span
		for s, err := range spans(&fakeTarget{segments: c.segments}) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, s)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestAlignedPart tries all offsets in two blocks of 8 bytes.
func TestAlignedPart(t *testing.T) {
	const block = 8
	for dst := range int64(2 * block) {
		for src := range int64(2 * block) {
			for length := range int64(4 * block) {
				from, to := alignedPart(dst, src, length, block)
				// The blocks of the target that are blocks of the source, too.
				var want int64
				for at := int64(0); at < dst+length; at += block {
					if at >= dst && at+block <= dst+length && (at-dst+src)%block == 0 {
						want += block
					}
				}
				aligned := from == to || (dst+from)%block == 0 && (src+from)%block == 0 && (to-from)%block == 0
				if to-from != want || !aligned || from < 0 || to > length {
					t.Fatalf("alignedPart(%d, %d, %d) = %d, %d; want %d bytes", dst, src, length, from, to, want)
				}
			}
		}
	}
}
