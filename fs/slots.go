package fs

import (
	"math/bits"
	"os"

	"flatimg/layers"
)

// pageSize is what one slot of a pipe holds at most. Each piece that is put in
// a pipe begins a new slot, and a piece of a file needs one for each page that
// it touches (pipe(7); splice_folio_into_pipe in the kernel's mm/filemap.c).
var pageSize = int64(os.Getpagesize())

// slotsOf returns how many slots the segments take in a pipe.
func slotsOf(segments []layers.Segment) int64 {
	var slots int64
	for _, s := range segments {
		var skew int64
		if s.Origin == layers.InFile {
			skew = s.Offset & (pageSize - 1)
		}
		slots += pages(skew + s.Length)
	}
	return slots
}

// replySlots returns how many slots there are for n bytes of content in the
// pipe in which go-fuse puts a reply together: it makes room for header,
// content and one more page (trySplice in fuse/splice_linux.go), the kernel
// rounds that up to a power of two (round_pipe_size in fs/pipe.c), and the
// header takes one. With fewer slots go-fuse's splice would come short, which
// the kernel would take as the end of the file.
func replySlots(n int64) int64 {
	const header = 16 // fuse_out_header, include/uapi/linux/fuse.h
	room := uint64(pages(header + n + pageSize))
	return 1<<bits.Len64(room-1) - 1
}

// pages returns how many pages n bytes take.
func pages(n int64) int64 { return (n + pageSize - 1) / pageSize }
