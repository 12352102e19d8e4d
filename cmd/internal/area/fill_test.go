package area

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/convert"
	"flatimg/layers"
)

// request is what a method was asked to bring, in bytes of the target.
type request struct {
	method     method
	at, length int64
}

// recordFill fills a new file in dir and returns it and the requests in the order
// of their offsets.
func recordFill(t *testing.T, dir string, target convert.Target) (*os.File, Stats, []request) {
	t.Helper()
	file := newFile(t, dir)
	var mu sync.Mutex
	var requests []request
	f := &filler{target: target, file: file, trace: func(m method, at, length int64) {
		mu.Lock()
		defer mu.Unlock()
		requests = append(requests, request{m, at, length})
	}}
	stats, err := f.fill(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(requests, func(a, b request) int { return cmp.Compare(a.at, b.at) })
	return file, stats, requests
}

const k = 1 << 10

// mixedTarget has a piece of each kind. Its two source files are in dir.
func mixedTarget(t *testing.T, dir string) *fakeTarget {
	a := sourceFile(t, dir, randomBytes(1, 1024*k))
	b := sourceFile(t, dir, randomBytes(2, 512*k), nil, randomBytes(3, 512*k))
	return &fakeTarget{segments: []layers.Segment{
		literal(randomBytes(4, 64*k)),
		inFile(a, 128*k, 128*k), // at 64k: aligned
		inFile(a, 256*k, 64*k),  // at 192k: continues it
		inFile(a, 0, 4*k),       // at 256k: one block
		literal(randomBytes(5, 1000)),
		zeroSegment(60*k - 1000),
		inFile(a, 512*k+512, 100*k), // at 320k: another place in its block
		zeroSegment(4 * k),
		inFile(a, 1*k, 200*k), // at 424k: another place, too
		literal(randomBytes(6, 1*k)),
		inFile(a, 301*k, 10*k),           // at 625k: aligned but for the first 3k
		zeroSegment(1024*k - 635*k),      //
		inFile(b, 256*k, 512*k+holeSize), // at 1024k: with a hole inside
		literal(randomBytes(7, 300)),     // the size is no multiple of anything
	}}
}

func TestFill(t *testing.T) {
	written := []request{
		{methodWrite, 0, 64 * k},
		{methodRange, 64 * k, 192 * k},
		{methodWrite, 256 * k, 4*k + 1000},
		{methodRange, 320 * k, 100 * k},
		{methodRange, 424 * k, 200 * k},
		{methodWrite, 624 * k, 11 * k},
		{methodRange, 1024 * k, 256 * k},
		{methodRange, 2304 * k, 256 * k},
		{methodWrite, 2560 * k, 300},
	}
	for _, c := range []struct {
		name         string
		source, dest func(t *testing.T) string
		want         []request
		shared       int64
	}{
		{"ext4", ext4, nil, written, 0},
		{"another file system", ext4, func(t *testing.T) string { return tmpfs(t, "16m") }, []request{
			{methodWrite, 0, 260*k + 1000},
			{methodWrite, 320 * k, 100 * k},
			{methodWrite, 424 * k, 211 * k},
			{methodWrite, 1024 * k, 256 * k},
			{methodWrite, 2304 * k, 256*k + 300},
		}, 0},
		{"xfs", xfs, nil, []request{
			{methodWrite, 0, 64 * k},
			{methodClone, 64 * k, 192 * k},
			{methodClone, 256 * k, 4 * k},
			{methodWrite, 260 * k, 1000},
			{methodRange, 320 * k, 100 * k},
			{methodRange, 424 * k, 200 * k},
			{methodWrite, 624 * k, 4 * k},
			{methodClone, 628 * k, 4 * k},
			{methodWrite, 632 * k, 3 * k},
			{methodClone, 1024 * k, 1536 * k},
			{methodWrite, 2560 * k, 300},
		}, (192 + 4 + 4 + 1536) * k},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := c.source(t)
			dest := source
			if c.dest != nil {
				dest = c.dest(t)
			}
			target := mixedTarget(t, source)
			file, stats, got := recordFill(t, dest, target)
			if !slices.Equal(got, c.want) {
				t.Errorf("requests\n%v, want\n%v", got, c.want)
			}
			if stats.Size != target.Size() || stats.Shared != c.shared {
				t.Errorf("%+v, want %d bytes, %d shared", stats, target.Size(), c.shared)
			}
			checkContent(t, file, readTarget(t, target))
			checkHole(t, file, 640*k, 1024*k)
			checkHole(t, file, 1280*k, 2304*k)
		})
	}
}

// checkHole fails the test unless [from, to) is a hole of f.
func checkHole(t *testing.T, f *os.File, from, to int64) {
	t.Helper()
	start, _, err := nextData(f, from, 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	if start != to {
		t.Errorf("data at %#x in what should be a hole, [%#x, %#x)", start, from, to)
	}
}

// TestFillLong fills more than the workers take at once, from a source file
// with runs in another order.
func TestFillLong(t *testing.T) {
	dir := t.TempDir()
	data := randomBytes(8, 20<<20)
	source := sourceFile(t, dir, data)
	target := &fakeTarget{}
	for i := range int64(100) {
		off := i * 7919 * 512 % (19 << 20)
		target.segments = append(target.segments, inFile(source, off, 400*k+i*512), zeroSegment(1+i*k))
	}
	file, stats, _ := recordFill(t, dir, target)
	checkContent(t, file, readTarget(t, target))
	var data64 int64
	for _, s := range target.segments {
		if s.Origin == layers.InFile {
			data64 += s.Length
		}
	}
	if stats.Data != data64 {
		t.Errorf("%d bytes of data, want %d", stats.Data, data64)
	}
}

// TestFillEmpty fills files of no data at all.
func TestFillEmpty(t *testing.T) {
	for _, segments := range [][]layers.Segment{nil, {zeroSegment(1)}, {zeroSegment(1 << 45)}} {
		target := &fakeTarget{segments: segments}
		dir := t.TempDir()
		if len(segments) > 0 && segments[0].Length > 1<<40 {
			dir = xfs(t) // ext4 has files of 16 TiB at most
		}
		file, stats, requests := recordFill(t, dir, target)
		fi, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if fi.Size() != target.Size() || stats.Data != 0 || len(requests) != 0 {
			t.Errorf("size %d: got size %d, %+v, requests %v", target.Size(), fi.Size(), stats, requests)
		}
	}
}

func TestFillWithoutSpace(t *testing.T) {
	target := &fakeTarget{segments: []layers.Segment{literal(randomBytes(9, 3<<20))}}
	dir := tmpfs(t, "2m")
	file := newFile(t, dir)
	asked := 0
	target.asked = func() { asked++ }
	_, err := Fill(t.Context(), file, target, nil)
	if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitNoSpace {
		t.Errorf("got %v, want an error with exit code %d", err, cli.ExitNoSpace)
	}
	if asked != 1 {
		t.Errorf("the target was walked %d times: it was not known before", asked)
	}
}

// TestFillRunsFull lets somebody else take the space after the check.
func TestFillRunsFull(t *testing.T) {
	target := &fakeTarget{segments: []layers.Segment{literal(randomBytes(9, 3<<20))}}
	dir := tmpfs(t, "4m")
	file := newFile(t, dir)
	asked := 0
	target.asked = func() {
		if asked++; asked == 2 {
			if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 2<<20), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := Fill(t.Context(), file, target, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want %v", err, syscall.ENOSPC)
	}
}

// TestFillSharesWithoutSpace fills more than is free, which sharing makes
// possible.
func TestFillSharesWithoutSpace(t *testing.T) {
	dir := xfs(t)
	source := sourceFile(t, dir, randomBytes(10, 8<<20))
	target := &fakeTarget{}
	for range 100 {
		target.segments = append(target.segments, inFile(source, 0, 8<<20))
	}
	_, stats, _ := recordFill(t, dir, target)
	if stats.Shared != 800<<20 {
		t.Errorf("%d bytes shared, want %d", stats.Shared, 800<<20)
	}
}

func TestFillIsCancelled(t *testing.T) {
	source := sourceFile(t, t.TempDir(), randomBytes(11, 1<<20))
	target := &fakeTarget{}
	for range 1000 {
		target.segments = append(target.segments, inFile(source, 0, 1<<20))
	}
	ctx, cancel := context.WithCancel(t.Context())
	brought := int64(0)
	var mu sync.Mutex
	f := &filler{target: target, file: newFile(t, t.TempDir()), trace: func(_ method, _, length int64) {
		cancel()
		mu.Lock()
		defer mu.Unlock()
		brought += length
	}}
	if _, err := f.fill(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if brought > 100<<20 {
		t.Errorf("%d bytes were copied after the interrupt", brought)
	}
}

// TestFillSourceIsCutOff must end with an error, not with zeros.
func TestFillSourceIsCutOff(t *testing.T) {
	dir := t.TempDir()
	source := sourceFile(t, dir, randomBytes(12, 2<<20))
	if err := os.Truncate(source.Path(), 1<<20); err != nil {
		t.Fatal(err)
	}
	target := &fakeTarget{segments: []layers.Segment{inFile(source, 512*k, 1<<20)}}
	if _, err := Fill(t.Context(), newFile(t, dir), target, nil); err == nil {
		t.Error("no error")
	}
}
