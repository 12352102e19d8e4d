package layers

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"flatimg/layers/qcow2"
	"flatimg/layers/raw"
	"flatimg/layers/volume"
)

// openContext is what a format may need to open a volume.
type openContext struct {
	snapshot         string
	ignoreTruncation bool
	// openStored opens a further file by the name that the image stores.
	openStored func(name string) (*volume.File, error)
}

// format is one that volumes can have.
type format struct {
	name string
	open func(file *volume.File, ctx openContext) (volume.Volume, error)
}

var formats = []format{
	{qcow2.Format, func(file *volume.File, ctx openContext) (volume.Volume, error) {
		// A nil pointer must not become a volume that is not nil.
		v, err := qcow2.Open(file, qcow2.Options{
			Snapshot: ctx.snapshot, IgnoreTruncation: ctx.ignoreTruncation, OpenData: ctx.openStored,
		})
		if err != nil {
			return nil, err
		}
		return v, nil
	}},
	{"raw", func(file *volume.File, ctx openContext) (volume.Volume, error) {
		if ctx.snapshot != "" {
			return nil, fmt.Errorf("%s: a raw image has no snapshot %q", file.Path(), ctx.snapshot)
		}
		return raw.Open(file)
	}},
}

func formatNamed(name string) *format {
	for i := range formats {
		if formats[i].name == name {
			return &formats[i]
		}
	}
	return nil
}

func formatNames() string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

func unsupportedFormat(name string) error {
	return fmt.Errorf("images of format %q are not supported, only %s", name, formatNames())
}

// foreign are the marks of formats that are known, but not read. A file that
// has one is not taken for a raw disk by mistake.
var foreign = []struct {
	name   string
	offset int
	magic  string
}{
	{"vmdk", 0, "KDMV"},
	{"vmdk", 0, "COWD"},
	{"vmdk", 0, "# Disk DescriptorFile"},
	{"vhdx", 0, "vhdxfile"},
	{"vhd", 0, "conectix"},
	{"vdi", 64, "\x7f\x10\xda\xbe"},
	{"qed", 0, "QED\x00"},
	{"luks", 0, "LUKS\xba\xbe"},
	{"parallels", 0, "WithoutFreeSpace"},
	{"parallels", 0, "WithouFreSpacExt"},
	{"asif", 0, "shdw"},
	{"bochs", 0, "Bochs Virtual HD Image"},
	{"cloop", 0, "#!/bin/sh\n#V2.0 Format\nmodprobe cloop"},
}

// probe returns the format of file by its first bytes: what is of no known
// format is raw. That is right for the file a user names; what a guest wrote
// can pretend to be anything, so a recorded format is never probed.
func probe(file *volume.File) (*format, error) {
	head := make([]byte, min(512, file.Size()))
	if _, err := file.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte("QFI\xfb")) {
		if len(head) >= 8 && binary.BigEndian.Uint32(head[4:]) == 1 {
			return nil, fmt.Errorf("%s: %w", file.Path(), unsupportedFormat("qcow"))
		}
		return formatNamed(qcow2.Format), nil
	}
	for _, f := range foreign {
		if len(head) >= f.offset && bytes.HasPrefix(head[f.offset:], []byte(f.magic)) {
			return nil, withHint(fmt.Errorf("%s: %w", file.Path(), unsupportedFormat(f.name)),
				"qemu-img convert -O qcow2 makes one of a format that is read; --source-format raw takes the file's bytes as the disk")
		}
	}
	if len(head) == 0 {
		return nil, withHint(fmt.Errorf("%s: the file is empty", file.Path()), "an image of no bytes holds no disk; restore the file")
	}
	// A damaged header must not turn a container into a disk.
	if ext := strings.ToLower(filepath.Ext(file.Path())); slices.Contains(containerExtensions, ext) {
		return nil, withHint(fmt.Errorf("%s: is named %s, but has no header of that format", file.Path(), ext),
			"restore the file; --source-format raw takes its bytes as the disk")
	}
	return formatNamed("raw"), nil
}

// containerExtensions are those of files that begin with a header.
var containerExtensions = []string{".qcow2", ".qcow", ".qed", ".vmdk", ".vdi", ".vhd", ".vhdx", ".avhd", ".avhdx"}
