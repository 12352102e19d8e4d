// Package area brings images to their destinations, and back.
//
// [Export] opens an image, lays it out as a target, makes a file of that in an
// area or computes it while it is sent, sends it, verifies it, and publishes it;
// [ExportAll] does so with several. [Import] fetches a file into an area,
// verifies it, and makes an image of it. [Jobs] and [RemoveJob] are about those
// that were interrupted. [Fill] writes a target into a file. The protocols have
// packages of their own below servers.
//
// # Where the file is made
//
// The area is a directory: [Options.Area], else the environment's FLATIMG_AREA,
// else the folder for temporary files. For a file on this machine the target is
// made right in the destination's folder, without a name or with a hidden one,
// so that there is one copy and not two; only an area given as an option that
// lies on another file system makes it two. A device of this machine gets the
// target as it is computed, and so does a server with [Options.Stream].
//
// # Jobs
//
// An export through an area, one to a server, and an import from a server have a
// job: a folder of their own in the area.
//
//	AREA/                        a folder that others may share, as /tmp
//	  flatimg-KEY-XXXX/          mode 0700; KEY names the request, XXXX is random
//	    .flatimg-job.json        the record
//	    web.qcow2                an export's files, as they are made
//	    fetched                  an import's file
//
// Whoever works on a job has a lock on its folder (flock(2)), which ends with the
// process. The record says what the job is to do ([Request]), of which state of
// the source, how the server is reached, and how far each file is: whether it is
// made, what the server's protocol needs to go on, and the state of its SHA-256.
// It is replaced as a whole, about once a second, and before anything is made on
// a server for the first time. No secret is in it. A folder that somebody else
// owns or may write to is no job: its record could name any command as ssh.
//
// # Going on
//
// The same request finds its job, whose lock nobody has. An export goes on when
// the image is in the same state: its files have the inodes, sizes and times of
// modification and of change that they had, and the program is the same. A file
// that was made is not made again. What was sent stays where the protocol can go
// on. Of another state, what was sent is removed and the export begins anew; with
// [Options.Resume] it is refused.
//
// An import goes on when the server says that the file is of the same version.
// What is in the area is read and hashed first, up to where the record's hash
// was: only what has the same hash is kept, since a machine that went down may
// have lost some of it. Of files that are mostly holes the data only is hashed.
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
// # What is verified
//
// The file is hashed while it is sent, and what arrived is compared by the
// server's own checksum where it has one. [Options.Verify] reads back what was
// sent, and compares a file that was made with the view, too. An import compares
// with the server's checksum and with [ImportOptions.SHA256]. [Report.VerifiedBy]
// says which was done. Nothing is published that differs.
//
// # What a failed run leaves behind
//
// At a destination of this machine nothing; a kill -9 leaves no file in its
// folder on the file systems that know files without names, else a hidden one.
// At a server, and in the area, what a later run can go on with, and the job that
// knows of it; nothing after an error that a later run would meet again, as a
// checksum that differs or a broken image. RemoveJob removes both; when the
// server can't be asked, the job stays. A kill -9 before the record is written
// leaves an empty folder in the area, and one after the publishing a job without
// anything at the server.
//
// The final name is never there before the file is complete, durable, and
// verified as far as was asked. Only when the second of two files can't be
// published, the first is there already. [Options.Keep] leaves the folder with
// the file, and no record: it is no job any more.
package area
