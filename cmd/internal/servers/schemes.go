package servers

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// IsURL says whether dest names a server and not a path.
func IsURL(dest string) bool {
	_, ok := schemeOf(dest)
	return ok
}

// LocalPath returns the path that dest names if that is one of this machine: a
// path, or a file:// URL.
func LocalPath(dest string) (path string, ok bool) {
	name, isURL := schemeOf(dest)
	if !isURL {
		return dest, true
	}
	if name != "file" {
		return "", false
	}
	path, err := filePath(dest)
	return path, err == nil
}

// IsFolder says whether dest can take several files: an existing folder of this
// machine, or a path or URL that ends with a slash. A disk never can.
func IsFolder(dest string) bool {
	if strings.HasSuffix(dest, "/") {
		name, _ := schemeOf(dest)
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
	name, _ := schemeOf(dest)
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

// schemeOf returns the scheme of a URL. A path that has "://" in it is one when
// it starts with a slash or a dot.
func schemeOf(dest string) (string, bool) {
	name, _, ok := strings.Cut(dest, "://")
	if !ok || name == "" || strings.ContainsAny(name, "/.") {
		return "", false
	}
	return strings.ToLower(name), true
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
	return usage(fmt.Errorf("%s: %s:// is none of the servers that are known", redacted(text), scheme),
		"%s is a path or one of: %s; a path with :// in it starts with ./", argument, strings.Join(names, ", "))
}

// redacted returns a URL as it can be shown: without a password.
func redacted(text string) string {
	u, err := url.Parse(text)
	if err == nil {
		return u.Redacted()
	}
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			return scheme + "://xxxxx@" + rest[i+1:]
		}
	}
	return text
}

// filePath returns the path of a file:// URL (RFC 8089).
func filePath(dest string) (string, error) {
	u, err := url.Parse(dest)
	switch {
	case err != nil || u.Host != "" && u.Host != "localhost":
		return "", usage(fmt.Errorf("%s: not a path of this machine", redacted(dest)), "write file:///path, with percent signs as %%25")
	case u.Path == "" || strings.ContainsRune(u.Path, 0):
		return "", usage(fmt.Errorf("%s: no path", dest), "write file:///path")
	}
	return u.Path, nil
}
