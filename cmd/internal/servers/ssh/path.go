package ssh

import (
	"path"
	"strings"
)

// RemoteFolder returns the folder of a path on a server. One in the home folder
// keeps its "./", so that it does not begin with a dash or a tilde.
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
