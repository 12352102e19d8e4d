package sftp

import (
	"errors"
	"fmt"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// parseURL parses sftp://[user@]host[:port]/path. The path is absolute; one that
// begins with /~/ is relative to the account's home folder.
func parseURL(dest string) (ssh.Target, string, error) {
	fail := func(what string) (ssh.Target, string, error) {
		return ssh.Target{}, "", transfer.Usage(errors.New(what), "write sftp://[user@]host[:port]/path, or /~/path for one in the home folder")
	}
	t, u, err := ssh.ParseHostURL(dest)
	if err != nil {
		if transfer.Is[*cli.Error](err) {
			return ssh.Target{}, "", err
		}
		return fail(err.Error())
	}
	if u.Path == "" || strings.ContainsRune(u.Path, 0) {
		return fail(fmt.Sprintf("%s: no path", dest))
	}
	if home, ok := strings.CutPrefix(u.Path, "/~/"); ok {
		return t, "./" + home, nil
	}
	return t, u.Path, nil
}
