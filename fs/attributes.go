package fs

import (
	"os"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// cacheTime is how long the kernel may keep entries and attributes. What
// changes is invalidated explicitly, so this is only "long".
const cacheTime = time.Hour

// ownership is whom the nodes belong to and who may read them.
type ownership struct {
	fuse.Owner
	file, dir uint32 // permission bits
	// since is when the mount began.
	since time.Time
}

func newOwnership(allowOther bool) ownership {
	o := ownership{
		Owner: fuse.Owner{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())},
		file:  0o400,
		dir:   0o500,
		since: time.Now(),
	}
	if allowOther {
		o.file, o.dir = 0o444, 0o555
	}
	return o
}

// fill fills in what all nodes have. size is in bytes, blocks in units of 512.
func (o ownership) fill(out *fuse.Attr, perm uint32, modTime time.Time, size, blocks int64) {
	out.Mode = perm // go-fuse adds the type
	out.Owner = o.Owner
	out.Nlink = 1
	out.Size, out.Blocks = uint64(size), uint64(blocks)
	// Not 0, or go-fuse makes up Blocks; larger values only help tools that
	// would read in smaller steps than 128 KiB, and there are none.
	out.Blksize = 4096
	out.SetTimes(&modTime, &modTime, &modTime)
}
