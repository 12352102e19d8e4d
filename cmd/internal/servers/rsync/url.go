package rsync

import (
	"errors"
	"fmt"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// OverSSH is the scheme of a path at the other end of ssh; "rsync" is that of a
// daemon's module.
const OverSSH = "rsync+ssh"

// parseURL parses rsync://[user@]host[:port]/module/path, whose returned path
// begins with the module, and rsync+ssh://[user@]host[:port]/path, whose path is
// as that of sftp:// URLs.
func parseURL(text string) (scheme string, _ ssh.Target, path string, _ error) {
	scheme, _ = transfer.SchemeOf(text)
	fail := func(what string) (string, ssh.Target, string, error) {
		return "", ssh.Target{}, "", transfer.Usage(errors.New(what), "write rsync://[user@]host[:port]/module/path or rsync+ssh://[user@]host[:port]/path")
	}
	t, u, err := ssh.ParseHostURL(text)
	if err != nil {
		if transfer.Is[*cli.Error](err) {
			return "", ssh.Target{}, "", err
		}
		return fail(err.Error())
	}
	if err := checkPath(u.Path); err != nil {
		return fail(fmt.Sprintf("%s: %v", text, err))
	}
	if scheme != OverSSH {
		path = strings.TrimLeft(u.Path, "/")
		if path == "" {
			return fail(fmt.Sprintf("%s: no module", text))
		}
		return scheme, t, path, nil
	}
	if home, ok := strings.CutPrefix(u.Path, "/~/"); ok {
		return scheme, t, "./" + home, nil
	}
	if u.Path == "" {
		return fail(fmt.Sprintf("%s: no path", text))
	}
	return scheme, t, u.Path, nil
}

// checkPath refuses what a server would take for a pattern: where files match
// it, it would be theirs, and quoted where none does.
func checkPath(path string) error {
	if i := strings.IndexAny(path, `*?[\`+"\x00\n\r"); i >= 0 {
		return fmt.Errorf("rsync would take %q in a path for a pattern", path[i])
	}
	return nil
}
