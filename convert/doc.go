// Package convert lays a flat image out as one file of a target format, without
// writing that file: a [Target] knows its exact size and says for any range
// where the bytes are.
//
// [ParseSpec] turns what a user writes into a [Spec], [New] lays an image out,
// [Measure] tells the size only; [Describe] lists what there is. A target is read through its segments or with
// [ReadAt]; [NextData], [DataRuns] and [Allocated] say where it holds data.
//
// # Formats
//
// In brackets what can only be exported; each format's file has the picture of
// its layout:
//
//	raw    the disk as it is
//	qcow2  standalone, or a delta [compressed with deflate or zstd]
//	vmdk   monolithicSparse, monolithicFlat [streamOptimized]
//	vdi    dynamic, static
//	vhd    dynamic, fixed
//	vhdx   dynamic, fixed
//	ova    [a virtual machine around a streamOptimized vmdk]
//
// # What a layout follows from
//
// raw is the guest's disk itself. A compact format stores only the clusters
// (blocks, grains) of the disk that hold data. Which ones these are is one bit
// for each, found in one walk of the offset map that reads no data. Everything
// else follows: a rank of the bit gives a cluster's place in the file, a select
// gives the cluster at a place, and tables are made for just the range that is
// read. So a target costs memory for its bits, at most 2.5 MiB for 1 TiB in
// clusters of 64 KiB, and nothing for ranges that are all data or all empty.
//
// The same image and options give the same bytes each time: no time stamps, no
// random identifiers, data in the order of the guest's disk.
//
// # Virtual size
//
// Formats can't have any size of disk. The guest's bytes are never cut: the
// virtual size is rounded up, and what is more reads as zeros. [GuestSize] and
// [Measurement] tell it.
//
//	raw                               that of the image
//	qcow2, vdi                        whole sectors of 512 bytes
//	vmdk, ova                         sectors, at least one
//	vhd, vhd,subformat=fixed          the next geometry ("CHS"), as QEMU does;
//	                                  sectors from 127.5 GiB on, where they end
//	vhd,force_size=on                 sectors, at least one
//	vhd,subformat=fixed,force_size=on whole MiB, for Azure
//	vhdx                              whole MiB, at least one, for Hyper-V
//
// [Spec.VirtualSize] makes it larger.
//
// # Compressed targets
//
// Where the parts of a compressed file are depends on how well each compresses,
// so that it can only be written as a whole: [Spec.Packed] tells, [New] refuses
// with a [PackedError], and [NewPacker] writes it, on all processors and yet the
// same bytes each time. It reads all data, and leaves out clusters that are
// zeros. [DropZeros] does so for the other formats, if it is asked to.
//
// # Deltas
//
// A delta is a qcow2 with a backing file, the base, that holds only the clusters
// in which the disk differs from it, its [Changes]: what the layers above one of
// the chain decide on ([ChangesSince]), or what the offset maps of two disks
// leave open ([ChangesFrom]), and of either what differs indeed once the data is
// read ([Changes.Compare]). A cluster of the disk is then
//
//	absent  no entry in the L2 table, and no table where all are: it is read
//	        from the base, past the end of which there are zeros
//	zeros   an entry without a place: zeros, whatever the base has there
//	data    stored whole: what did not change in it is there again
//
// [Changes.Target] lays it out and [Changes.Packer] compresses it, for the base
// that [Backing] names. The virtual size is that of the disk, whatever that of
// the base. The base must stay as it is: above another content a delta shows
// neither disk.
//
// # Targets of several files
//
// A vmdk,subformat=monolithicFlat is a descriptor, which is the target, and the
// disk as it is, a [Companion] of it. A file that names itself or its companion
// must know its name: [Spec.Named].
//
// # Identifiers
//
// UUIDs and the like in headers are hashes of the image's fingerprint, the format
// and the options, so that they are the same each time; the option uuid sets that
// of the disk. Time stamps are zero.
//
// # What a failed run leaves behind
//
// Nothing. The package opens no file and writes none but that which a [Packer]
// is given. A spec that is not possible is refused with a [SpecError], a disk
// that the format can't hold with a [LimitError], by [New] and [NewPacker].
//
// # Adding a format
//
// A row in the table of formats (format.go) and a file that lays it out, with
// the type clusters (clusters.go) for its data part.
package convert
