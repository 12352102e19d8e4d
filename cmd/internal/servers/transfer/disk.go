package transfer

import (
	"fmt"

	"flatimg/cmd/internal/servers"
)

// SlowestReads is how many bytes a second the slowest disk reads at: a server is
// silent while it reads what it has.
const SlowestReads = 50 << 20

// CheckDisk is the check of a file for a disk of size bytes at where, which may
// be larger.
func CheckDisk(where string, size int64, f servers.File) error {
	if f.Size > size {
		return NoSpace(where, f.Size, size)
	}
	if f.Size > 0 && f.Size < size && f.ReadFromEnd {
		return Usage(fmt.Errorf("%s: a file of format %s must end where the disk does, which is larger", where, f.Format), "raw and qcow2 can be on a larger disk")
	}
	return nil
}
