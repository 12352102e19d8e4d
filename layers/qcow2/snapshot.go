package qcow2

import (
	"encoding/binary"
	"fmt"
	"strings"

	"flatimg/layers/volume"
)

// Limits and sizes of the snapshot table ("Snapshots"; QEMU's block/qcow2.h).
const (
	maxSnapshotTable  = 16 << 20 // a quarter of QCOW_MAX_SNAPSHOTS_SIZE: it is kept in memory
	maxSnapshotExtra  = 1024     // QCOW_MAX_SNAPSHOT_EXTRA_DATA
	snapshotFixed     = 40
	extraVMStateSize  = 0  // u64 in the extra data: VM state size
	extraDiskSize     = 8  // u64: size of the disk
	extraIcount       = 16 // u64: instruction count
	extraThroughSize  = 16 // extra data long enough for the first two
	extraThroughCount = 24
)

// snapshot is an entry of the snapshot table and where its L1 table is.
type snapshot struct {
	volume.Snapshot
	l1Offset  uint64
	l1Entries uint32
}

// readSnapshots reads the snapshot table.
func readSnapshots(file *volume.File, h *header) ([]snapshot, error) {
	if h.NbSnapshots == 0 {
		return nil, nil
	}
	off := int64(h.SnapshotsOffset)
	if off <= 0 || off&(h.clusterSize()-1) != 0 {
		return nil, fmt.Errorf("the snapshot table's offset %#x is not aligned to a cluster", h.SnapshotsOffset)
	}
	start := off
	var list []snapshot
	for i := range h.NbSnapshots {
		s, length, err := readSnapshot(file, off, diskSize(h.Size))
		if err != nil {
			return nil, fmt.Errorf("snapshot %d of %d, at offset %#x: %w", i+1, h.NbSnapshots, off, err)
		}
		if off += length; off-start > maxSnapshotTable {
			return nil, fmt.Errorf("the snapshot table at %#x is larger than %d bytes", start, maxSnapshotTable)
		}
		list = append(list, s)
	}
	return list, nil
}

// readSnapshot reads the entry at off and returns its length with padding.
func readSnapshot(file *volume.File, off, currentSize int64) (snapshot, int64, error) {
	var s snapshot
	var fixed [snapshotFixed]byte
	if off > file.Size()-snapshotFixed {
		return s, 0, truncated(file, "snapshot table", off)
	}
	if _, err := file.ReadAt(fixed[:], off); err != nil {
		return s, 0, err
	}
	be := binary.BigEndian
	s.l1Offset = be.Uint64(fixed[0:])
	s.l1Entries = be.Uint32(fixed[8:])
	idLen, nameLen := int64(be.Uint16(fixed[12:])), int64(be.Uint16(fixed[14:]))
	s.Seconds, s.Nanoseconds = be.Uint32(fixed[16:]), be.Uint32(fixed[20:])
	s.VMClock = be.Uint64(fixed[24:])
	s.VMStateSize = int64(be.Uint32(fixed[32:]))
	extraLen := int64(be.Uint32(fixed[36:]))
	if extraLen > maxSnapshotExtra {
		return s, 0, fmt.Errorf("%d bytes of extra data are more than %d", extraLen, maxSnapshotExtra)
	}
	rest := make([]byte, extraLen+idLen+nameLen)
	if off+snapshotFixed+int64(len(rest)) > file.Size() {
		return s, 0, truncated(file, "snapshot table", off)
	}
	if _, err := file.ReadAt(rest, off+snapshotFixed); err != nil {
		return s, 0, err
	}
	s.Size, s.Icount = currentSize, -1
	if extraLen >= extraThroughSize {
		s.VMStateSize = int64(be.Uint64(rest[extraVMStateSize:]))
		size := be.Uint64(rest[extraDiskSize:])
		if size > 1<<62 {
			return s, 0, fmt.Errorf("disk size %#x is too large", size)
		}
		s.Size = diskSize(size)
	}
	if extraLen >= extraThroughCount {
		s.Icount = int64(be.Uint64(rest[extraIcount:]))
	}
	s.ID = string(rest[extraLen : extraLen+idLen])
	s.Name = string(rest[extraLen+idLen:])
	length := snapshotFixed + int64(len(rest))
	return s, (length + 7) &^ 7, nil
}

// findSnapshot returns the one with that ID or, if there is none, that name,
// as qemu-img looks it up.
func findSnapshot(list []snapshot, idOrName string) (snapshot, error) {
	for _, s := range list {
		if s.ID == idOrName {
			return s, nil
		}
	}
	var names []string
	for _, s := range list {
		if s.Name == idOrName {
			return s, nil
		}
		names = append(names, fmt.Sprintf("%q (ID %s)", s.Name, s.ID))
	}
	if len(names) == 0 {
		return snapshot{}, fmt.Errorf("no snapshot %q: the image has none", idOrName)
	}
	return snapshot{}, fmt.Errorf("no snapshot %q: the image has %s", idOrName, strings.Join(names[:min(len(names), 20)], ", "))
}
