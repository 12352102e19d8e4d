package ssh

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"flatimg/cmd/internal/servers/transfer"
)

// ParseHostURL parses a URL of an account at a host and a path,
// scheme://[user@]host[:port]/path. An error of package cli is complete; to
// others the caller adds how the URL is written.
func ParseHostURL(text string) (Target, *url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		// Not err itself, which quotes all of text with a password in it.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		scheme, _ := transfer.SchemeOf(text)
		return Target{}, nil, fmt.Errorf("the %s:// URL: %w", scheme, err)
	}
	if _, ok := u.User.Password(); ok {
		return Target{}, nil, transfer.Usage(errors.New("the URL has a password in it"),
			"everybody on this machine could see it: let ssh ask, use a key, or --password-file for an rsync daemon")
	}
	t := Target{User: u.User.Username(), Host: u.Hostname(), Port: u.Port()}
	switch {
	case t.Host == "":
		err = fmt.Errorf("%s: no host", text)
	case t.Port != "" && !transfer.ValidPort(t.Port):
		err = fmt.Errorf("%s: a port is a number from 1 to 65535", text)
	case strings.HasPrefix(t.Host, "-"), strings.HasPrefix(t.User, "-"):
		// ssh would take it for an option.
		err = fmt.Errorf("%s: host and user can't begin with a dash", text)
	case u.RawQuery != "" || u.Fragment != "":
		err = fmt.Errorf("%s: a question mark or a # in a path is written as %%3F or %%23", text)
	}
	return t, u, err
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
