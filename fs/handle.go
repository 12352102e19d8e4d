package fs

import (
	"context"
	"sync"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"flatimg/convert"
	"flatimg/layers"
)

// viewHandle is a view that somebody has open.
type viewHandle struct {
	view   *viewNode
	target convert.Target
	size   int64 // of target, in bytes
	watch  *watch
}

var _ = (gofs.FileReleaser)((*viewHandle)(nil))

// Release lets go of the image.
func (h *viewHandle) Release(context.Context) syscall.Errno {
	h.view.image.release()
	return 0
}

// segmentLists are reused, as each read needs one.
var segmentLists = sync.Pool{New: func() any { return new([]layers.Segment) }}

var _ = (gofs.FileReader)((*viewHandle)(nil))

// Read answers with the segments of the range.
func (h *viewHandle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if err := h.view.image.changed.Load(); err != nil {
		return nil, h.fail(err)
	}
	n := min(int64(len(dest)), h.size-off)
	if n <= 0 {
		return inMemory(nil), 0
	}
	list := segmentLists.Get().(*[]layers.Segment)
	defer segmentLists.Put(list)
	segments, err := h.target.AppendSegments((*list)[:0], off, n)
	if err != nil {
		return nil, h.fail(err)
	}
	*list = segments
	defer clear(segments) // not to hold on to memory
	result, err := h.view.catalog.reply(segments, dest[:n])
	if err != nil {
		return nil, h.fail(err)
	}
	if err := h.verify(segments); err != nil {
		result.Done()
		return nil, h.fail(err)
	}
	h.view.reads.Add(1)
	h.view.bytesRead.Add(n)
	return result, 0
}

// verify says whether what was read for the segments is of the state in which
// the image was opened.
func (h *viewHandle) verify(segments []layers.Segment) error {
	err := h.watch.verify(segments)
	if err != nil {
		err = h.view.image.verify(err)
		h.view.catalog.hurry()
	}
	return err
}

var _ = (gofs.FileFsyncer)((*viewHandle)(nil))

// Fsync has nothing to do; without it, fsync(2) would be an error.
func (h *viewHandle) Fsync(context.Context, uint32) syscall.Errno { return 0 }

var _ = (gofs.FileLseeker)((*viewHandle)(nil))

// Lseek finds data and holes; the kernel does all other seeks by itself.
func (h *viewHandle) Lseek(_ context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if off >= uint64(h.size) {
		return 0, syscall.ENXIO
	}
	at := int64(off)
	for {
		start, end, err := convert.NextData(h.target, at)
		if changed := h.verify(nil); changed != nil {
			err = changed
		}
		switch {
		case err != nil:
			return 0, h.fail(err)
		case whence == unix.SEEK_DATA && start >= h.size:
			return 0, syscall.ENXIO
		case whence == unix.SEEK_DATA:
			return uint64(start), 0
		case whence != unix.SEEK_HOLE:
			return 0, syscall.EINVAL
		case start > at || start >= h.size:
			return uint64(at), 0
		}
		at = end
	}
}

// fail remembers and logs err and returns what the kernel is told. What looks
// like a broken image may be one that changes.
func (h *viewHandle) fail(err error) syscall.Errno {
	if changed := h.view.image.verify(h.watch.verifyAll()); changed != nil {
		err = changed
	}
	h.view.catalog.note(h.view, err)
	return toErrno(err)
}
