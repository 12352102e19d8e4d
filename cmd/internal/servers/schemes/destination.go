package schemes

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"

	"flatimg/cmd/internal/servers/local"
	"flatimg/cmd/internal/servers/transfer"
)

// IsURL says whether dest names a server and not a path.
func IsURL(dest string) bool {
	_, ok := transfer.SchemeOf(dest)
	return ok
}

// LocalPath returns the path that dest names if that is one of this machine: a
// path, or a file:// URL.
func LocalPath(dest string) (path string, ok bool) {
	name, isURL := transfer.SchemeOf(dest)
	if !isURL {
		return dest, true
	}
	if name != "file" {
		return "", false
	}
	path, err := local.FilePath(dest)
	return path, err == nil
}

// IsFolder says whether dest can take several files: an existing folder of this
// machine, or a path or URL that ends with a slash. A disk never can.
func IsFolder(dest string) bool {
	if strings.HasSuffix(dest, "/") {
		name, _ := transfer.SchemeOf(dest)
		return !slices.ContainsFunc(schemes(), func(s scheme) bool { return s.name == name && s.disk })
	}
	path, isLocal := LocalPath(dest)
	if !isLocal {
		return false
	}
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// DefaultFormat returns the format of a target for dest when the user names
// none; named is that of the extension of dest, which may be empty.
func DefaultFormat(dest, named string) string {
	name, _ := transfer.SchemeOf(dest)
	for _, s := range schemes() {
		if s.name == name && s.disk {
			return "raw"
		}
		if s.name == name {
			return cmp.Or(named, s.format, "raw")
		}
	}
	return cmp.Or(named, "raw")
}

// unknownScheme is the error for a URL, given as argument, of a scheme that is
// not there.
func unknownScheme(argument, text, scheme string) error {
	var names []string
	for _, s := range schemes() {
		if argument == "DEST" || s.source != nil {
			names = append(names, s.name+"://")
		}
	}
	return transfer.Usage(fmt.Errorf("%s: %s:// is none of the servers that are known", transfer.Redacted(text), scheme),
		"%s is a path or one of: %s; a path with :// in it starts with ./", argument, strings.Join(names, ", "))
}
