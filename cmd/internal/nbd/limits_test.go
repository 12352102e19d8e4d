package nbd

import "testing"

func TestCut(t *testing.T) {
	for _, block := range []int64{1, 512, 4096} {
		for off := range 3 * block {
			if off%block > 2 && off%block < block-2 {
				continue
			}
			for _, length := range []int64{0, 1, 2, block - 1, block, block + 1, 3*block - 1, 5 * block} {
				head, whole, tail := cut(off, length, block)
				if head < 0 || whole < 0 || tail < 0 || head+whole+tail != length {
					t.Fatalf("cut(%d, %d, %d) = %d, %d, %d: not the range", off, length, block, head, whole, tail)
				}
				start := off + head
				if head >= block || tail >= block || whole%block != 0 || (whole > 0 || tail > 0) && start%block != 0 {
					t.Fatalf("cut(%d, %d, %d) = %d, %d, %d: not at blocks", off, length, block, head, whole, tail)
				}
			}
		}
	}
}

func TestStatedBlocks(t *testing.T) {
	for _, c := range []struct {
		stated [3]uint32
		want   Blocks
	}{
		{[3]uint32{1, 4096, unlimited}, Blocks{1, 4096, maxPayload}},
		{[3]uint32{512, 512, 65536}, Blocks{512, 512, 65536}},
		{[3]uint32{65536, 65536, 65536}, Blocks{65536, 65536, 65536}},
	} {
		if got, err := statedBlocks(c.stated[0], c.stated[1], c.stated[2]); err != nil || got != c.want {
			t.Errorf("%v: %v, %v", c.stated, got, err)
		}
	}
	for _, c := range [][3]uint32{
		{0, 4096, unlimited}, {3, 4096, unlimited}, {512, 0, unlimited}, {512, 256, 1024}, {512, 1000, 1024},
		{512, 512, 0}, {512, 512, 256}, {512, 512, 1000}, {1 << 17, 1 << 17, unlimited},
	} {
		if got, err := statedBlocks(c[0], c[1], c[2]); err == nil {
			t.Errorf("%v: %v, want an error", c, got)
		}
	}
}

func TestRanges(t *testing.T) {
	var r ranges
	for i, c := range []struct {
		start, end int64
		ok         bool
	}{
		{10, 20, true}, {30, 40, true}, {15, 16, false}, {5, 11, false}, {19, 31, false}, {39, 41, false}, {0, 50, false},
		{20, 30, true}, {0, 5, true}, {40, 50, true}, {5, 10, true}, {49, 50, false}, {0, 1, false},
	} {
		if ok := r.add(c.start, c.end); ok != c.ok {
			t.Errorf("%d: add(%d, %d) = %v with %v", i, c.start, c.end, ok, r)
		}
	}
	if !r.whole(50) || r.whole(51) || len(r) != 1 {
		t.Errorf("%v", r)
	}
	r = nil
	ok := true
	for i := int64(0); ok; i++ {
		ok = r.add(2*i, 2*i+1)
	}
	if len(r) != maxRanges+1 {
		t.Errorf("stopped at %d ranges", len(r))
	}
}
