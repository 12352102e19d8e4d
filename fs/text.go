package fs

import (
	"context"
	"syscall"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// textNode is a file whose text is made when it is opened.
type textNode struct {
	gofs.Inode
	name string
	ino  uint64
	attr ownership
	text func() string
}

var _ = (gofs.NodeGetattrer)((*textNode)(nil))

// Getattr gives the size that the text has now; the kernel must not keep it.
func (n *textNode) Getattr(_ context.Context, _ gofs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.attr.fill(&out.Attr, n.attr.file, time.Now(), int64(len(n.text())), 0)
	return 0
}

var _ = (gofs.NodeAccesser)((*textNode)(nil))

// Access refuses execution only.
func (n *textNode) Access(_ context.Context, mask uint32) syscall.Errno { return accessFile(mask) }

var _ = (gofs.NodeOpener)((*textNode)(nil))

// Open makes the text, which the reader then sees in one state.
func (n *textNode) Open(_ context.Context, flags uint32) (gofs.FileHandle, uint32, syscall.Errno) {
	if writes(flags) {
		return nil, 0, syscall.EROFS
	}
	return textHandle(n.text()), fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH, 0
}

// textHandle is a text that somebody reads.
type textHandle string

var _ = (gofs.FileReader)(textHandle(""))

// Read returns bytes of the text.
func (h textHandle) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n := 0
	if off < int64(len(h)) {
		n = copy(dest, h[off:])
	}
	return inMemory(dest[:n]), 0
}

// writes says whether open flags ask for more than reading.
func writes(flags uint32) bool {
	return flags&syscall.O_ACCMODE != syscall.O_RDONLY || flags&syscall.O_TRUNC != 0
}

// accessFile answers access(2) for a file that can be read and nothing else;
// who may read is the kernel's to say.
func accessFile(mask uint32) syscall.Errno {
	const wantExec = 1
	if mask&wantExec != 0 {
		return syscall.EACCES
	}
	return 0
}
