package servers

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"flatimg/cmd/internal/cli"
)

// parseSFTP parses sftp://[user@]host[:port]/path. The path is absolute;
// one that begins with /~/ is relative to the account's home folder.
func parseSFTP(dest string) (sshTarget, string, error) {
	fail := func(what string) (sshTarget, string, error) {
		return sshTarget{}, "", usage(errors.New(what), "write sftp://[user@]host[:port]/path, or /~/path for one in the home folder")
	}
	t, u, err := parseHostURL(dest)
	if err != nil {
		if is[*cli.Error](err) {
			return sshTarget{}, "", err
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

// parseHostURL parses a URL of an account at a host and a path: scheme://
// [user@]host[:port]/path. An error of type [*cli.Error] is complete; to others
// the caller adds how the URL is written.
func parseHostURL(text string) (sshTarget, *url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		// Not err itself, which quotes all of text with a password in it.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		scheme, _ := schemeOf(text)
		return sshTarget{}, nil, fmt.Errorf("the %s:// URL: %w", scheme, err)
	}
	if _, ok := u.User.Password(); ok {
		return sshTarget{}, nil, usage(errors.New("the URL has a password in it"),
			"everybody on this machine could see it: let ssh ask, use a key, or --password-file for an rsync daemon")
	}
	t := sshTarget{user: u.User.Username(), host: u.Hostname(), port: u.Port()}
	switch {
	case t.host == "":
		err = fmt.Errorf("%s: no host", text)
	case t.port != "" && !validPort(t.port):
		err = fmt.Errorf("%s: a port is a number from 1 to 65535", text)
	case strings.HasPrefix(t.host, "-"), strings.HasPrefix(t.user, "-"):
		// ssh would take it for an option.
		err = fmt.Errorf("%s: host and user can't begin with a dash", text)
	case u.RawQuery != "" || u.Fragment != "":
		err = fmt.Errorf("%s: a question mark or a # in a path is written as %%3F or %%23", text)
	}
	return t, u, err
}

func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
