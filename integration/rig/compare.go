package rig

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// compareStep is the number of bytes that are read and compared at a time.
const compareStep = 1 << 20

// Compare fails the test when two files differ, and says where first.
func Compare(t T, pathA, pathB string) {
	t.Helper()
	a, sizeA := open(t, pathA)
	defer a.Close()
	b, sizeB := open(t, pathB)
	defer b.Close()
	if sizeA != sizeB {
		t.Fatalf("%s has %d bytes, %s has %d", pathA, sizeA, pathB, sizeB)
	}
	compare(t, pathA, pathB, a, b, sizeA)
}

// CompareContent fails the test when the file at path does not hold want, and
// says where first.
func CompareContent(t T, path string, want *Content) {
	t.Helper()
	f, size := open(t, path)
	defer f.Close()
	if size != want.Size() {
		t.Fatalf("%s has %d bytes, want %d", path, size, want.Size())
	}
	compare(t, path, "what was written", f, want, size)
}

func open(t T, path string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatalf("%v", err)
	}
	// Not from stat, which knows no size of a block device.
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return f, size
}

func compare(t T, nameA, nameB string, a, b io.ReaderAt, size int64) {
	t.Helper()
	bufA, bufB := make([]byte, compareStep), make([]byte, compareStep)
	for off := int64(0); off < size; off += compareStep {
		n := min(compareStep, size-off)
		readFull(t, nameA, a, bufA[:n], off)
		readFull(t, nameB, b, bufB[:n], off)
		if bytes.Equal(bufA[:n], bufB[:n]) {
			continue
		}
		i := int64(0)
		for bufA[i] == bufB[i] {
			i++
		}
		end := min(i+16, n)
		t.Fatalf("%s and %s differ first at %#x (%d):\n% x\n% x", nameA, nameB, off+i, off+i, bufA[i:end], bufB[i:end])
	}
}

func readFull(t T, name string, r io.ReaderAt, p []byte, off int64) {
	t.Helper()
	if n, err := r.ReadAt(p, off); n < len(p) && (err == nil || errors.Is(err, io.EOF)) {
		t.Fatalf("%s: %d of %d bytes at %#x", name, n, len(p), off)
	} else if n < len(p) {
		t.Fatalf("%s: %v", name, err)
	}
}
