// Package convert lays a flat image out as one file of a target format, without
// writing that file: a [Target] knows its exact size and says for any range
// where the bytes are.
//
// [ParseSpec] turns what a user writes into a [Spec], [New] lays an image out,
// [Measure] tells the size only. A target is read through its segments or with
// [ReadAt]; [NextData], [DataRuns] and [Allocated] say where it holds data.
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
// random identifiers, data in the order of the guest's disk. The picture of
// each layout stands in the format's file.
//
// # What a failed run leaves behind
//
// Nothing. The package opens no file and writes none; images that can't be held
// by a format are refused by [New] with a [LimitError].
//
// # Adding a format
//
// A row in the table of formats (format.go) and a file that lays it out, with
// [clusters] for its data part.
package convert
