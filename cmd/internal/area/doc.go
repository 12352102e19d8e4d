// Package area makes a target into a real file and brings it to its
// destination.
//
// [Export] does the whole: it opens an image, lays it out, materialises the
// target in an area, sends it, verifies it, and publishes it. [Fill] is the part
// that writes a target into a file.
//
// # Where the file is made
//
// The area is a directory: [Options.Area], else the environment's FLATIMG_AREA,
// else the folder for temporary files. Each job has a folder of its own in it,
// "flatimg-XXXX" of mode 0700. For a destination on this machine the target is
// made right in the destination's folder, without a name or with a hidden one,
// so that there is one copy and not two; only an area given as an option that
// lies on another file system makes it two.
//
// # How bytes get there
//
// For each run of bytes the best way that works is taken, and what has failed
// once for a source file is not tried again:
//
//  1. A block-aligned run of a source file on the same file system is cloned
//     (XFS, btrfs): the blocks are shared, nothing is read or written.
//  2. It is copied inside the kernel (copy_file_range), or on the server's side
//     of a network file system.
//  3. It is read and written, through one buffer per worker, so that scattered
//     small runs become few large writes. This is the way of metadata and of
//     compressed clusters, too.
//
// Holes stay holes, also those inside the source files. Several workers take
// spans of the target in the order of their offsets, and the kernel is told to
// write each back at once, so that the flush at the end has little left to do.
//
// A compressed target is different: [convert.Packer] writes it, on all
// processors; to verify it, it is compressed once more. An export of several
// files (vmdk,subformat=monolithicFlat) makes and verifies them all, then
// publishes the data before the file that names it.
//
// # What a failed run leaves behind
//
// Nothing, if it fails or is interrupted. A kill -9 leaves no file in a
// destination's folder on the file systems that know files without names, else
// a hidden one; and the job's folder in the area. The final name is never there
// before the file is complete, durable, and verified as far as was asked. Only
// when the second of two files can't be published, the first is there already.
package area
