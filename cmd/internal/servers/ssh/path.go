package ssh

import (
	"path"
	"strings"
)

// RemoteFolder returns the folder of a path on a server, RemoteJoin a path in a
// folder: those in the home folder keep their "./", so that none begins with a
// dash or a tilde.
func RemoteFolder(name string) string {
	dir := path.Dir(name)
	if strings.HasPrefix(name, "./") && dir != "." {
		return "./" + dir
	}
	return dir
}

// RemoteJoin returns the path of a name in a folder; see [RemoteFolder].
func RemoteJoin(dir, name string) string {
	joined := path.Join(dir, name)
	if dir == "." || strings.HasPrefix(dir, "./") {
		return "./" + joined
	}
	return joined
}

// URL returns the URL, of that scheme, of a path at the target. A path in the
// home folder begins with "./".
func (t Target) URL(scheme, path string) string {
	var b strings.Builder
	b.WriteString(scheme + "://")
	if t.User != "" {
		b.WriteString(t.User + "@")
	}
	if strings.Contains(t.Host, ":") {
		b.WriteString("[" + t.Host + "]")
	} else {
		b.WriteString(t.Host)
	}
	if t.Port != "" {
		b.WriteString(":" + t.Port)
	}
	if home, ok := strings.CutPrefix(path, "./"); ok {
		path = "~/" + home
	}
	b.WriteString("/" + strings.TrimPrefix(path, "/"))
	return b.String()
}
