package fs

import (
	"context"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// controlName is the name of the control directory. It is not listed, so that
// copies of a whole mount do not get it.
const controlName = ".flatimg"

// controlNode is the directory of files about the mount.
type controlNode struct {
	gofs.Inode
	attr  ownership
	files []*textNode
}

var _ = (gofs.NodeOnAdder)((*controlNode)(nil))

// OnAdd adds the files, which never change in number.
func (n *controlNode) OnAdd(ctx context.Context) {
	for _, f := range n.files {
		n.AddChild(f.name, n.NewPersistentInode(ctx, f, gofs.StableAttr{Ino: f.ino}), false)
	}
}

var _ = (gofs.NodeGetattrer)((*controlNode)(nil))

// Getattr answers from what was set at the start.
func (n *controlNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.fill(&out.Attr)
	out.SetTimeout(cacheTime)
	return 0
}

func (n *controlNode) fill(out *fuse.Attr) {
	n.attr.fill(out, n.attr.dir, n.attr.since, 0, 0)
	out.Nlink = 2
}

var _ = (gofs.NodeAccesser)((*controlNode)(nil))

// Access leaves it to the kernel who may enter.
func (n *controlNode) Access(context.Context, uint32) syscall.Errno { return 0 }
