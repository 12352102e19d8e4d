// Package layers opens layered disk images and says, for each offset of the
// disk, which layer holds its newest data.
//
// [Open] opens a chain of volumes from its top and gives a flat [Image]. Its
// offset map is asked in two ways: [Image.Extents] tells where guest bytes come
// from, with layer and host offset, and [Image.AppendSegments] tells how to get
// them. [Probe] only looks at the top, [Image.At] is the disk as a lower layer
// shows it.
//
// # The offset map
//
// The map is resolved lazily, a region at a time: each layer is asked once
// what it has there, the answers are merged, and the result is kept compact in
// a [Cache]. After that a look-up is a binary search in one list, however many
// layers there are. Regions that no layer touches are known from the L1 tables
// and cost nothing.
//
// # Trust
//
// An image is written by a stranger. Its fields are checked where they are
// read, in the package of its format; paths that it stores are followed by
// [Open] only inside the directory tree of the top image and of each
// [Options.AllowDirs].
package layers
