package convert

import (
	"fmt"
	"strings"
)

// Backing is the file that a delta reads from what it does not hold.
type Backing struct {
	// Name of the file as the delta records it: a path, which is relative to the
	// delta's folder unless it is absolute. At most 1023 bytes, and no more
	// than fits into a cluster with the rest of the header.
	Name string
	// Format of the file under QEMU's name, "raw" or "qcow2"; at most 15 bytes.
	// It is not optional: QEMU refuses or guesses, and a raw disk whose guest
	// writes a header of qcow2 would be read as that.
	Format string
}

const (
	maxBackingName   = 1023 // "Header", backing_file_size
	maxBackingFormat = 15   // what QEMU's block/qcow2.c has memory for
	// backingFormatExtension is the type of the extension that names the format
	// ("Header extensions").
	backingFormatExtension = 0xe2792aca
)

// recorded is the name as it stands in the file. A colon before the first slash
// would make it a protocol of QEMU.
func (b Backing) recorded() string {
	if scheme, _, found := strings.Cut(b.Name, ":"); found && !strings.Contains(scheme, "/") {
		return "./" + b.Name
	}
	return b.Name
}

// check refuses what a header can't hold in a cluster of 1<<bits bytes.
func (b Backing) check(bits uint) error {
	refuse := func(help, format string, args ...any) error {
		return &SpecError{fmt.Errorf("target format qcow2: "+format, args...), help}
	}
	name := b.recorded()
	most := min(maxBackingName, 1<<bits-len(qcow2Header{zstd: true, backing: Backing{Format: b.Format}}.bytes()))
	switch {
	case b.Name == "" || strings.ContainsRune(b.Name, 0):
		return refuse("the base must be a file", "the name %q can't be that of a backing file", b.Name)
	case b.Format == "" || len(b.Format) > maxBackingFormat || strings.ContainsRune(b.Format, 0):
		return refuse("QEMU's names are raw and qcow2", "the format %q can't be that of a backing file", b.Format)
	case len(name) > most:
		return refuse("a path that is relative to the target may be shorter; cluster_size=4k and more have space for 1023 bytes",
			"the name of the backing file has %d bytes, at most %d are possible: %s", len(name), most, name)
	}
	return nil
}
