package convert

import (
	"fmt"
	"strings"
)

// LimitError says that a disk does not fit into a target format.
type LimitError struct {
	// Target is the format with the options that decide.
	Target string
	// Disk is the size of the disk in bytes.
	Disk int64
	// Limit is what the disk passes, in words.
	Limit string
	// Fits is a target that would hold the disk; empty when there is none or
	// when it is not known.
	Fits string
}

func (e *LimitError) Error() string {
	disk := sizeText(e.Disk)
	if !strings.ContainsAny(disk, units) {
		disk += " bytes"
	}
	return fmt.Sprintf("target format %s can't hold this disk of %s: %s", e.Target, disk, e.Limit)
}

// Hint says what the user can do about it.
func (e *LimitError) Hint() string {
	if e.Fits == "" {
		return "--format raw has no limit of its own"
	}
	return "--format " + e.Fits + " holds it"
}
