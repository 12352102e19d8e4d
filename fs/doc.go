// Package fs shows flat images as files of a FUSE file system.
//
// Call [Mount] with an [Options]; it returns when the mount answers. The
// [Server] serves until somebody unmounts, or until [Server.Unmount].
//
// # Nodes
//
//	/                  rootNode     the views
//	/web.raw           viewNode     one flat image in one target format
//	/.flatimg/         controlNode  not listed, found by name
//	/.flatimg/errors   textNode     one line per image that can't be shown or read: "path: reason"
//	/.flatimg/pid      textNode     process ID of the server
//	/.flatimg/status   textNode     JSON: a [Status]
//
// # Which files are images
//
// A source is an image or a directory of images, not recursive. In a
// directory, a regular file or a link to one is an image if its name ends in
// .qcow2, .qcow, .qed, .img, .raw, .iso, .vmdk, .vdi, .vhd, .vpc, .vhdx, .avhd
// or .avhdx in whatever case, or if it begins with qcow2's magic, as libvirt's
// snapshots web.snap1 do. Names that begin with a dot are ignored. A top, an
// image that no other one there is backed by, gets a view in each target
// format, and so does each of its internal snapshots.
//
// # Names
//
// A view is named after the image's file without its extension, with that of
// the target format: web.qcow2 gives web.raw, its snapshot "daily" gives
// web@daily.raw. A target of several files has a view for each, with names that
// begin alike: web.vmdk and web-flat.vmdk. In a snapshot's name, '/' and control characters become '_';
// where that leaves two alike, or none, the snapshot's ID follows ('~ID'). Of
// two target formats with one extension the one with options has them in
// the name: web,cluster_size=2M.qcow2. Views that would get the same name keep
// the image's extension (web.img.raw and web.qcow2.raw), and if it is still
// the same, the position of the source on the command line (web.img~2.raw). A
// view for which that is not enough is listed in errors; none hides another.
//
// # Live sources
//
// Sources are polled each second, and at each listing and each lookup of a
// name that is not there. A view is bound to the state of all files of its
// chain (device, inode, size, mtime, ctime). When one differs, the name gets a
// new node and the kernel is told to drop the old one. Who opens the old node
// meanwhile, because the kernel still knows it, gets ESTALE, upon which the
// kernel looks the name up anew: an open never gives an old state.
//
// Files that were replaced or deleted are still there for who has the old node
// open, and are read on. If a file was overwritten or truncated in place, or can
// be reached no more, readers of the old node get EIO, and the log and errors
// say which file and when: a view never mixes two states. For that, what was
// read is answered only after a look at the files that it comes from; at the
// others, too, every few milliseconds and whenever metadata was read. So what
// reaches this process is right from the moment of the change on, save for
// pages that are on their way to a reader just then. What the kernel has cached
// of the view it is told to drop, within a second. Changes that leave size and
// mtime alone are not seen, nor are those of block devices.
//
// # Writers
//
// An open image has QEMU's locks of a reader, so that nobody writes to it.
// Looking at images in passing takes no locks: a virtual machine may start at
// any time on an image of which no view is open. An image that is being
// written has no view until its writer has gone. With [layers.Options]
// ForceShare it has one: the layer that has a writer is not watched, nothing
// of the view is kept by the kernel from one open to the next, and what is read
// may be a mix of states. Log and status say so.
//
// # Caching
//
// Data never changes under a node, so the kernel may keep what it has read
// (FOPEN_KEEP_CACHE, explicit invalidation only) and entries and attributes
// for an hour. Names that do not exist are not cached. st_blocks is known only
// after a walk over the image's whole map; LOOKUP must not wait for that, so
// it answers with attributes that expire at once and the first GETATTR answers
// with complete ones. For that reason the kernel does no permission checks of
// its own (default_permissions) while only the mounting user may enter at all:
// each first open would wait for that walk. With [Options].AllowOther modes
// matter, and the kernel checks them.
//
// An image is opened when somebody opens or stats a view of it, and closed
// when nobody has used it for some seconds.
//
// # Reads
//
// A read resolves to segments. Ranges of files are spliced into the reply
// without passing through this process. A reply is put together in a pipe, and
// a range that comes short there (its file was truncated) is an EIO; go-fuse's
// own splice of a file would send fewer bytes, which the kernel takes as
// zeros. Small reads, and reads of very many pieces, are read into memory;
// what is in memory anyway (zeros, metadata, inflated clusters) is sent from
// where it is.
//
// # Errors
//
// [syscall.EROFS] for all that writes; [syscall.EIO] for an image that can't be
// read or has changed; [syscall.EACCES] for what needs a flag to be allowed;
// [syscall.EMFILE], [syscall.ENFILE] and [syscall.ENOMEM] as they are. Reasons
// are in the log, one line for each fault, with image, layer, guest and host
// offset, and in .flatimg/errors.
//
// # Concurrency and deadlocks
//
// go-fuse calls nodes from many goroutines. One goroutine scans the sources,
// another one tells the kernel what changed: the kernel takes the lock of the
// directory for that, which is held by whoever waits for a lookup, which may
// be waiting for the scan. No lock is held while the kernel is told. A lookup
// waits for a scan a limited time, because a source may lead into this mount.
//
// An image is opened under a lock of its own, for which nobody but its own users
// waits: a slow disk holds up the views of one image only.
//
// # How to abort
//
// If the server hangs, "flatimg unmount --lazy MOUNTPOINT" detaches it and
// killing the process whose ID the log has ends all requests with ENOTCONN. As
// root, writing to /sys/fs/fuse/connections/MINOR/abort does the same.
package fs
