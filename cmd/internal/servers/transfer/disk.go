package transfer

import (
	"encoding/json"
	"fmt"

	"flatimg/cmd/internal/servers"
)

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

// UnmarshalState reads what [servers.Log.Keep] was given by an earlier run.
func UnmarshalState(b json.RawMessage, state any) error {
	if err := json.Unmarshal(b, state); err != nil {
		return fmt.Errorf("the record of an earlier run is damaged: %w", err)
	}
	return nil
}
