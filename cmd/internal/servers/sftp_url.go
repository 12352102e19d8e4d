package servers

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// parseSFTP parses sftp://[user@]host[:port]/path. The path is absolute;
// one that begins with /~/ is relative to the account's home folder.
func parseSFTP(dest string) (sshTarget, string, error) {
	fail := func(what string) (sshTarget, string, error) {
		return sshTarget{}, "", usage(errors.New(what), "write sftp://[user@]host[:port]/path, or /~/path for one in the home folder")
	}
	u, err := url.Parse(dest)
	if err != nil {
		// Not err itself, which quotes all of dest with a password in it.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return fail(fmt.Sprintf("the sftp:// destination: %v", err))
	}
	if _, ok := u.User.Password(); ok {
		return sshTarget{}, "", usage(errors.New("the destination has a password in it"), "everybody on this machine could see it: let ssh ask, or use a key")
	}
	t := sshTarget{user: u.User.Username(), host: u.Hostname(), port: u.Port()}
	switch {
	case t.host == "":
		return fail(fmt.Sprintf("%s: no host", dest))
	case t.port != "" && !validPort(t.port):
		return fail(fmt.Sprintf("%s: a port is a number from 1 to 65535", dest))
	case strings.HasPrefix(t.host, "-"), strings.HasPrefix(t.user, "-"):
		// ssh would take it for an option.
		return fail(fmt.Sprintf("%s: host and user can't begin with a dash", dest))
	case u.RawQuery != "" || u.Fragment != "":
		return fail(fmt.Sprintf("%s: a question mark or a # in a path is written as %%3F or %%23", dest))
	case u.Path == "" || strings.ContainsRune(u.Path, 0):
		return fail(fmt.Sprintf("%s: no path", dest))
	}
	if home, ok := strings.CutPrefix(u.Path, "/~/"); ok {
		return t, "./" + home, nil
	}
	return t, u.Path, nil
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
