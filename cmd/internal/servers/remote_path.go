package servers

import (
	"path"
	"strings"
)

// remoteFolder returns the folder of a path on a server, remoteJoin a path in a
// folder: those in the home folder keep their "./", so that none begins with a
// dash or a tilde.
func remoteFolder(name string) string {
	dir := path.Dir(name)
	if strings.HasPrefix(name, "./") && dir != "." {
		return "./" + dir
	}
	return dir
}

func remoteJoin(dir, name string) string {
	joined := path.Join(dir, name)
	if dir == "." || strings.HasPrefix(dir, "./") {
		return "./" + joined
	}
	return joined
}

// url returns the URL, of that scheme, of a path at the target. A path in the
// home folder begins with "./".
func (t sshTarget) url(scheme, path string) string {
	var b strings.Builder
	b.WriteString(scheme + "://")
	if t.user != "" {
		b.WriteString(t.user + "@")
	}
	if strings.Contains(t.host, ":") {
		b.WriteString("[" + t.host + "]")
	} else {
		b.WriteString(t.host)
	}
	if t.port != "" {
		b.WriteString(":" + t.port)
	}
	if home, ok := strings.CutPrefix(path, "./"); ok {
		path = "~/" + home
	}
	b.WriteString("/" + strings.TrimPrefix(path, "/"))
	return b.String()
}
