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

// tooLarge returns the error for a disk of more than most bytes, which the limit
// named allows.
func tooLarge(target string, disk, most int64, limit string) error {
	e := &LimitError{
		Target: target,
		Disk:   disk,
		Limit:  fmt.Sprintf("at most %s are possible with %s", sizeText(most), limit),
	}
	qcow2, _ := maxQcow2Disk(16)            // of the default clusters
	most2M, _ := maxQcow2Disk(maxQcow2Bits) // of the largest ones
	switch {
	case disk <= maxVHDXDisk:
		e.Fits = "vhdx"
	case disk <= qcow2:
		e.Fits = "qcow2"
	case disk <= most2M:
		e.Fits = "qcow2,cluster_size=2M"
	}
	return e
}
