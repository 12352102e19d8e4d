package qcow2

import (
	"encoding/binary"
	"fmt"
	"sync"

	"flatimg/layers/volume"
)

// sliceBytes is the size of the piece of an L2 table that is read at once.
// Larger ones mean fewer reads for fragmented images and more memory for each
// lookup under way.
const sliceBytes = 64 << 10

// sliceBuffers are reused: a walk over a large disk reads many.
var sliceBuffers = sync.Pool{New: func() any { return new([sliceBytes]byte) }}

// AppendRuns implements [volume.Volume].
func (v *Volume) AppendRuns(dst []volume.Run, off, length int64) ([]volume.Run, error) {
	end := off + length
	buf := sliceBuffers.Get().(*[sliceBytes]byte)
	defer sliceBuffers.Put(buf)
	for off < end {
		if empty := v.EmptyUntil(off); empty > off {
			dst = appendRun(dst, volume.Run{Length: min(empty, end) - off, Kind: volume.Hole, Host: volume.NoHost})
			off = min(empty, end)
			continue
		}
		// off lies in a table, since EmptyUntil would have skipped it.
		n := v.l1.find(uint32(off >> v.tableBits()))
		tableEnd := min((int64(v.l1.index[n])+1)<<v.tableBits(), end)
		var err error
		if dst, err = v.appendTable(dst, off, tableEnd, v.l1.l2[n], buf[:]); err != nil {
			return nil, err
		}
		off = tableEnd
	}
	return dst, nil
}

// appendTable appends the runs of [off, end), which lies within the guest range
// of the L2 table at offset table; buf is scratch space.
func (v *Volume) appendTable(dst []volume.Run, off, end, table int64, buf []byte) ([]volume.Run, error) {
	size := v.entrySize()
	for off < end {
		first := off >> v.clusterBits & (1<<v.l2Bits() - 1)
		count := (end-1)>>v.clusterBits - off>>v.clusterBits + 1
		b := buf[:min(int64(len(buf)), count*size)/size*size]
		if err := readPadded(v.files[0], b, table+first*size); err != nil {
			return nil, err
		}
		for len(b) > 0 {
			entry := binary.BigEndian.Uint64(b)
			var bitmap uint64
			if v.extendedL2 {
				bitmap = binary.BigEndian.Uint64(b[8:])
			}
			start := off &^ (v.clusterSize() - 1)
			n := int64(1) // clusters that are taken at once
			c, err := v.decode(entry, bitmap, start)
			if err == nil {
				n += v.alike(b[size:], entry, c)
				dst, err = v.appendCluster(dst, c, off-start, min(end-start, n<<v.clusterBits))
			}
			switch {
			case err == nil:
			case namesFile(err):
				return nil, fmt.Errorf("%w (guest offset %#x)", err, start)
			default:
				return nil, &CorruptError{
					Path: v.files[0].Path(), Table: table, Index: start >> v.clusterBits & (1<<v.l2Bits() - 1),
					Entry: entry, Guest: start, Err: err,
				}
			}
			b = b[n*size:]
			off = start + n<<v.clusterBits
		}
	}
	return dst, nil
}

// alike returns how many of the plain entries in b continue the one of c: most
// tables are long runs of nothing or of neighbours, and to decode each entry
// would be most of the work of resolving a large disk.
func (v *Volume) alike(b []byte, entry uint64, c cluster) int64 {
	if v.extendedL2 || entry != 0 && c.kind != volume.Data {
		return 0
	}
	step := uint64(v.clusterSize())
	if entry == 0 {
		step = 0
	}
	n := int64(0)
	for ; len(b) >= 8; b = b[8:] {
		entry += step
		if binary.BigEndian.Uint64(b) != entry {
			break
		}
		n++
	}
	return n
}

// appendCluster appends the runs of the part [from, to) of a cluster, or of
// several plain ones that continue it.
func (v *Volume) appendCluster(dst []volume.Run, c cluster, from, to int64) ([]volume.Run, error) {
	if c.kind == volume.Compressed {
		if c.host >= v.files[0].Size() && !v.ignoreTruncation {
			return nil, truncated(v.files[0], "compressed cluster", c.host)
		}
		return append(dst, volume.Run{Length: to - from, Kind: volume.Compressed, Host: c.host, Stored: c.stored}), nil
	}
	if c.allocated|c.zero == 0 {
		return v.appendPlain(dst, c.kind, c.host, from, to)
	}
	shift := v.clusterBits - 5 // log2 of a subcluster's size
	for i := int(from >> shift); from < to; {
		kind, n := c.subRun(i)
		i += n
		stop := min(int64(i)<<shift, to)
		var err error
		if dst, err = v.appendPlain(dst, kind, c.host, from, stop); err != nil {
			return nil, err
		}
		from = stop
	}
	return dst, nil
}

// appendPlain appends a run of one kind; host is the offset of the first
// cluster's first byte.
func (v *Volume) appendPlain(dst []volume.Run, kind volume.Kind, host, from, to int64) ([]volume.Run, error) {
	run := volume.Run{Length: to - from, Kind: kind, File: v.dataIndex, Host: volume.NoHost}
	if host != volume.NoHost {
		run.Host = host + from
	}
	if kind != volume.Data {
		return appendRun(dst, run), nil
	}
	file := v.files[v.dataIndex]
	// A last cluster that the file holds in part is common. One that begins
	// past its end is not, unless the file is a raw disk.
	last := (run.Host + run.Length - 1) &^ (v.clusterSize() - 1)
	if last >= file.Size() && !v.dataFile && !v.ignoreTruncation {
		return nil, truncated(file, "data cluster", last)
	}
	past := min(run.Length, max(0, run.Host+run.Length-file.Size()))
	run.Length -= past
	dst, err := v.appendData(dst, run)
	if past > 0 {
		dst = appendRun(dst, volume.Run{Length: past, Kind: volume.Zero, File: run.File, Host: run.Host + run.Length})
	}
	return dst, err
}

// appendData appends a run of data, which lies within the file, split into what
// was written and what is a hole of the file.
func (v *Volume) appendData(dst []volume.Run, run volume.Run) ([]volume.Run, error) {
	if !v.preallocated {
		if run.Length > 0 {
			dst = appendRun(dst, run)
		}
		return dst, nil
	}
	file := v.files[v.dataIndex]
	for end := run.Host + run.Length; run.Host < end; {
		start, stop, err := file.NextData(run.Host)
		if err != nil {
			return nil, err
		}
		run.Kind, run.Length = volume.Unwritten, min(start, end)-run.Host
		if run.Length == 0 {
			run.Kind, run.Length = volume.Data, min(stop, end)-run.Host
		}
		dst = appendRun(dst, run)
		run.Host += run.Length
	}
	return dst, nil
}

// isPreallocated says whether much of the image file is holes, as it is when
// the clusters of the whole disk were allocated in advance. Only then the file
// is asked for holes in every run of data; the thresholds are QEMU's
// (qcow2_detect_metadata_preallocation).
func (v *Volume) isPreallocated() bool {
	file := v.files[0]
	used := file.DiskUsage() >> v.clusterBits
	return (file.Size()+v.clusterSize()-1)>>v.clusterBits >= max(used*10/9, used+2)
}

// appendRun appends r, or lengthens the last run when r continues it. Callers
// append to a dst of their own, whose last run is the one before r.
func appendRun(dst []volume.Run, r volume.Run) []volume.Run {
	if n := len(dst); n > 0 {
		last := &dst[n-1]
		if last.Kind == r.Kind && last.File == r.File && continues(last.Host, last.Length, r.Host) {
			last.Length += r.Length
			return dst
		}
	}
	return append(dst, r)
}

func continues(host, length, next int64) bool {
	if host == volume.NoHost || next == volume.NoHost {
		return host == next
	}
	return host+length == next
}

// readPadded fills p from file; what lies past its end reads as zeros, as QEMU
// has it for metadata.
func readPadded(file *volume.File, p []byte, off int64) error {
	in := max(0, min(int64(len(p)), file.Size()-off))
	clear(p[in:])
	if in == 0 {
		return nil
	}
	if _, err := file.ReadAt(p[:in], off); err != nil {
		return err
	}
	return nil
}
