package fs

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"flatimg/convert"
)

// viewNode is a flat image in one state and one target format, as a file.
type viewNode struct {
	gofs.Inode

	// Read only.
	catalog *catalog
	name    string
	// ino is that of the name, generation counts the nodes that had it.
	ino, generation uint64
	image           *flatImage
	key             imageKey
	format          int // index of catalog.formats
	file            viewFile

	// size of the file and space that its data takes, in bytes; -1: not known.
	size, allocated atomic.Int64

	// What was asked of it since the name leads to it.
	reads, bytesRead atomic.Int64

	// Protected by catalog.mu.
	shown     bool  // the kernel was told the node
	failure   error // of the last attempt to open or read it
	failures  int64 // all of them
	lastError error
}

// viewFile says which file of a target a view is.
type viewFile struct {
	// main is the name of the target's file.
	main string
	// companion counts the target's companions from 1; 0: the file itself.
	companion int
}

// acquire returns the file's content. The caller must call image.release.
func (v *viewNode) acquire() (convert.Target, *openImage, error) {
	target, im, err := v.image.acquire(v.format, v.file.main)
	v.catalog.note(v, err)
	if err != nil {
		return nil, nil, err
	}
	if n := v.file.companion; n > 0 {
		target = convert.Companions(target)[n-1].Target
	}
	v.size.Store(target.Size())
	return target, im, nil
}

// measure makes size known, and allocated if all is set.
func (v *viewNode) measure(all bool) syscall.Errno {
	known := v.size.Load() >= 0 && (!all || v.allocated.Load() >= 0)
	if known && !v.image.chain.hasWriter() {
		return 0
	}
	target, im, err := v.acquire()
	if err != nil {
		return toErrno(err)
	}
	defer v.image.release()
	if all {
		allocated, err := convert.Allocated(target)
		if changed := v.image.verify(im.watch.verifyAll()); changed != nil {
			v.catalog.note(v, changed)
			return toErrno(changed)
		}
		if err != nil {
			// A part of the map is damaged. The rest can be read, so the file
			// must be seen: it takes as much as it could at most.
			v.catalog.note(v, err)
			allocated = target.Size()
		}
		v.allocated.Store(allocated)
	}
	return 0
}

// fill fills in what is known, and returns whether that is all.
func (v *viewNode) fill(out *fuse.Attr) bool {
	const block = 512 // unit of st_blocks, stat(2)
	allocated := v.allocated.Load()
	v.catalog.attr.fill(out, v.catalog.attr.file, v.image.chain.modTime, v.size.Load(), (max(allocated, 0)+block-1)/block)
	return allocated >= 0
}

// fillEntry answers a LOOKUP. Without st_blocks the kernel must ask again
// before it tells anybody.
func (v *viewNode) fillEntry(out *fuse.EntryOut) syscall.Errno {
	if errno := v.measure(false); errno != 0 {
		return errno
	}
	out.SetEntryTimeout(cacheTime)
	if v.fill(&out.Attr) && !v.image.chain.hasWriter() {
		out.SetAttrTimeout(cacheTime)
	}
	return 0
}

var _ = (gofs.NodeGetattrer)((*viewNode)(nil))

// Getattr walks over the image's whole map the first time.
func (v *viewNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if errno := v.measure(true); errno != 0 {
		return errno
	}
	v.fill(&out.Attr)
	if !v.image.chain.hasWriter() {
		out.SetTimeout(cacheTime)
	}
	return 0
}

var _ = (gofs.NodeAccesser)((*viewNode)(nil))

// Access refuses execution only.
func (v *viewNode) Access(_ context.Context, mask uint32) syscall.Errno { return accessFile(mask) }

var _ = (gofs.NodeOpener)((*viewNode)(nil))

// Open opens the image. When the name leads elsewhere by now, ESTALE makes the
// kernel look it up anew, so that who opens a name never gets an old state
// (d_revalidate with LOOKUP_REVAL, path_openat in the kernel's fs/namei.c).
func (v *viewNode) Open(_ context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if writes(flags) {
		return nil, 0, syscall.EROFS
	}
	if !v.image.chain.isCurrent() {
		return nil, 0, syscall.ESTALE
	}
	target, im, err := v.acquire()
	if errors.Is(err, errChanged) {
		return nil, 0, syscall.ESTALE
	}
	if err != nil {
		return nil, 0, toErrno(err)
	}
	open := uint32(fuse.FOPEN_KEEP_CACHE)
	if v.image.chain.hasWriter() {
		open = 0
	}
	if v.catalog.directIO {
		open = fuse.FOPEN_DIRECT_IO
	}
	// Nothing is written, so there is nothing to flush at close(2).
	return &viewHandle{view: v, target: target, size: target.Size(), watch: im.watch}, open | fuse.FOPEN_NOFLUSH, 0
}
