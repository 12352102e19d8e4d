package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Inode numbers of the nodes that are always there.
const (
	rootIno = 1 + iota
	controlIno
	errorsIno
	pidIno
	statusIno
)

// rootNode is the mount's root directory. Its entries are those of the catalog.
type rootNode struct {
	gofs.Inode
	catalog *catalog
	control *controlNode
}

var _ = (gofs.NodeOnAdder)((*rootNode)(nil))

// OnAdd adds what is always there.
func (r *rootNode) OnAdd(ctx context.Context) {
	dir := r.NewPersistentInode(ctx, r.control, gofs.StableAttr{Mode: syscall.S_IFDIR, Ino: controlIno})
	r.AddChild(controlName, dir, false)
}

var _ = (gofs.NodeLookuper)((*rootNode)(nil))

// Lookup scans the sources for a name that is not there or leads to an old
// state, so that an image can be read as soon as it is copied to its source.
func (r *rootNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofs.Inode, syscall.Errno) {
	if name == controlName {
		r.control.fill(&out.Attr)
		out.SetEntryTimeout(cacheTime)
		out.SetAttrTimeout(cacheTime)
		return r.control.EmbeddedInode(), 0
	}
	v := r.catalog.lookup(name)
	if v == nil || v.image.changed.Load() != nil || !v.image.chain.isCurrent() {
		r.catalog.wait(ctx)
		if v = r.catalog.lookup(name); v == nil {
			return nil, syscall.ENOENT
		}
	}
	if errno := v.fillEntry(out); errno != 0 {
		return nil, errno
	}
	return r.NewInode(ctx, v, gofs.StableAttr{Mode: syscall.S_IFREG, Ino: v.ino, Gen: v.generation}), 0
}

var _ = (gofs.NodeReaddirer)((*rootNode)(nil))

// Readdir scans the sources first.
func (r *rootNode) Readdir(ctx context.Context) (gofs.DirStream, syscall.Errno) {
	r.catalog.wait(ctx)
	views, _ := r.catalog.list()
	entries := make([]fuse.DirEntry, len(views))
	for i, v := range views {
		entries[i] = fuse.DirEntry{Name: v.name, Ino: v.ino, Mode: syscall.S_IFREG}
	}
	return gofs.NewListDirStream(entries), 0
}

var _ = (gofs.NodeGetattrer)((*rootNode)(nil))

// Getattr gives the time of the last change of names as mtime.
func (r *rootNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	_, changed := r.catalog.list()
	r.catalog.attr.fill(&out.Attr, r.catalog.attr.dir, changed, 0, 0)
	out.Nlink = 3 // ".", its name, and ".." of the control directory
	out.SetTimeout(cacheTime)
	return 0
}

var _ = (gofs.NodeAccesser)((*rootNode)(nil))

// Access leaves it to the kernel who may enter.
func (r *rootNode) Access(context.Context, uint32) syscall.Errno { return 0 }

var _ = (gofs.NodeStatfser)((*rootNode)(nil))

// Statfs says that the file system is full and holds the views.
func (r *rootNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const block = 4096
	views, _ := r.catalog.list()
	var bytes int64
	for _, v := range views {
		bytes += max(v.size.Load(), 0) // -1: not known until it is opened
	}
	*out = fuse.StatfsOut{
		Blocks:  uint64((bytes + block - 1) / block),
		Files:   uint64(len(views)),
		Bsize:   block,
		Frsize:  block,
		NameLen: nameMax,
	}
	return 0
}

// drop makes the kernel drop what is outdated. It waits for lookups and reads to
// end; see the package's documentation on deadlocks.
func (r *rootNode) drop(old outdated) {
	for _, v := range old.contents {
		v.NotifyContent(0, 0)
	}
	for _, v := range old.names {
		// ENOENT says that the kernel has forgotten the name by itself.
		r.NotifyEntry(v.name)
	}
	if len(old.names) > 0 {
		const onlyAttributes = -1
		r.NotifyContent(onlyAttributes, 0)
	}
}
