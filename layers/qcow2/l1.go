package qcow2

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// l1Table holds the entries of an L1 table that are not zero, so that the
// table of an empty disk of many TiB takes nothing. Read only.
type l1Table struct {
	// index in the table, ascending, and offset in bytes of the L2 table.
	index []uint32
	l2    []int64
}

// readL1 reads and checks as many entries as the disk needs ("L1 table").
func (v *Volume) readL1(offset uint64, entries uint32) (l1Table, error) {
	var t l1Table
	file := v.files[0]
	if int64(entries)*8 > maxL1Bytes {
		return t, fmt.Errorf("an L1 table of %d entries is larger than %d bytes", entries, maxL1Bytes)
	}
	needed := v.size >> v.tableBits()
	if v.size&(1<<v.tableBits()-1) != 0 {
		needed++
	}
	if needed > int64(entries) {
		return t, fmt.Errorf("an L1 table of %d entries is too small for a disk of %d bytes, which needs %d", entries, v.size, needed)
	}
	if offset&uint64(v.clusterSize()-1) != 0 || offset > offsetMask {
		return t, fmt.Errorf("the L1 table's offset %#x is not aligned to a cluster or too large", offset)
	}
	if needed == 0 {
		return t, nil
	}
	if end := int64(offset) + needed*8; end > file.Size() && !v.ignoreTruncation {
		return t, truncated(file, "L1 table", int64(offset))
	}
	// Counted first: a slice that grows takes up to three times the memory.
	tables := 0
	if err := v.eachL1(int64(offset), needed, func(int64, int64) error { tables++; return nil }); err != nil {
		return t, err
	}
	if most := v.mostTables(); int64(tables) > most {
		return t, fmt.Errorf("the L1 table at %#x names %d L2 tables, but the file can hold %d at most: they overlap", offset, tables, most)
	}
	t.index = make([]uint32, 0, tables)
	t.l2 = make([]int64, 0, tables)
	err := v.eachL1(int64(offset), needed, func(i, l2 int64) error {
		switch {
		case l2&(v.clusterSize()-1) != 0:
			return fmt.Errorf("entry %d of the L1 table at %#x: the L2 table's offset %#x is not aligned to a cluster", i, offset, l2)
		case l2 >= file.Size() && !v.ignoreTruncation:
			return truncated(file, "L2 table", l2)
		}
		t.index = append(t.index, uint32(i))
		t.l2 = append(t.l2, l2)
		return nil
	})
	return t, err
}

// eachL1 calls use with the index and the L2 table's offset of each of the first
// n entries of the L1 table at offset that is not zero.
func (v *Volume) eachL1(offset, n int64, use func(i, l2 int64) error) error {
	const chunk = 64 << 10
	buf := make([]byte, min(n*8, chunk))
	for i := int64(0); i < n; {
		b := buf[:min((n-i)*8, chunk)]
		if err := readPadded(v.files[0], b, offset+i*8); err != nil {
			return err
		}
		for ; len(b) > 0; b, i = b[8:], i+1 {
			if l2 := int64(binary.BigEndian.Uint64(b) & offsetMask); l2 != 0 {
				if err := use(i, l2); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// mostTables is the number of L2 tables that the file has room for. Each table
// has a cluster of its own: an L1 table that names one again and again makes a
// small file say more about a disk than anybody can read in a year. Tables in
// holes of the file are possible, if not by the million.
func (v *Volume) mostTables() int64 {
	const always = 1 << 16
	file := v.files[0]
	room := file.Size()
	if used := file.DiskUsage(); used > 0 {
		room = min(room, used)
	}
	return max(always, room>>v.clusterBits)
}

// find returns the position of the first entry at or after index i, which is
// len(t.index) when there is none.
func (t l1Table) find(i uint32) int {
	return sort.Search(len(t.index), func(n int) bool { return t.index[n] >= i })
}

// EmptyUntil implements [volume.Volume].
func (v *Volume) EmptyUntil(off int64) int64 {
	if off >= v.size {
		return off
	}
	n := v.l1.find(uint32(off >> v.tableBits()))
	if n == len(v.l1.index) {
		return v.size
	}
	return max(off, int64(v.l1.index[n])<<v.tableBits())
}
