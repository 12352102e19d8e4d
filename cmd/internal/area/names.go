package area

import (
	"path/filepath"
	"slices"
	"strings"

	"flatimg/cmd/internal/servers/schemes"
	"flatimg/convert"
)

// imageExtensions are cut off an image's name to make the target's.
var imageExtensions = []string{".qcow2", ".qcow", ".img", ".raw", ".vmdk", ".vdi", ".vhd", ".vpc", ".vhdx", ".avhd", ".avhdx"}

// targetName is the file name of a target for a destination that is a folder:
// "web.qcow2" gives "web.raw", its snapshot s1 "web@s1.raw".
func targetName(image, snapshot string, spec convert.Spec) string {
	name := filepath.Base(image)
	if ext := filepath.Ext(name); slices.Contains(imageExtensions, strings.ToLower(ext)) && ext != name {
		name = strings.TrimSuffix(name, ext)
	}
	if snapshot != "" {
		name += "@" + strings.ReplaceAll(snapshot, "/", "_")
	}
	return name + spec.Extension()
}

// targetSpec parses the target's format; without one it is that which the
// extension of dest, a path or a URL, names, else what suits the server.
func targetSpec(format, dest string) (convert.Spec, error) {
	if format == "" {
		format = schemes.DefaultFormat(dest, convert.FormatOf(dest))
	}
	return convert.ParseSpec(format)
}
