package servers

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// webAddress is a file that a URL over HTTP names.
type webAddress struct {
	scheme string   // as the user wrote it: "davs"
	url    *url.URL // http or https, without user
	user   string
}

// webSchemes are those of HTTP, and what they are on the line.
func webSchemes() map[string]string {
	return map[string]string{
		"http": "http", "https": "https", "dav": "http", "davs": "https",
		"imageio+http": "http", "imageio+https": "https",
	}
}

// parseWeb parses scheme://[user@]host[:port]/path[?query].
func parseWeb(text string) (webAddress, error) {
	fail := func(what string) (webAddress, error) {
		return webAddress{}, usage(errors.New(what), "write https://[user@]host[:port]/path; http, dav and davs are written alike")
	}
	u, err := url.Parse(text)
	if err != nil {
		// Not err itself, which quotes all of the URL with a password in it.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return fail(fmt.Sprintf("the URL: %v", err))
	}
	if _, ok := u.User.Password(); ok {
		return webAddress{}, usage(errors.New("the URL has a password in it"),
			"everybody on this machine could see it: use --password-file, or FLATIMG_PASSWORD")
	}
	a := webAddress{scheme: u.Scheme, user: u.User.Username()}
	u.Scheme, u.User = webSchemes()[u.Scheme], nil
	a.url = u
	switch {
	case u.Scheme == "" || u.Opaque != "" || u.Hostname() == "":
		return fail(fmt.Sprintf("%s: no host", a))
	case strings.HasSuffix(u.Host, ":") || u.Port() != "" && !validPort(u.Port()):
		return fail(fmt.Sprintf("%s: a port is a number from 1 to 65535", a))
	case u.Fragment != "":
		return fail(fmt.Sprintf("%s: a # in a path is written as %%23", a))
	case u.Path == "" || strings.ContainsRune(u.Path, 0):
		return fail(fmt.Sprintf("%s: no path", a))
	case a.name() == "." || a.name() == "..":
		return fail(fmt.Sprintf("%s: no file name", a))
	}
	return a, nil
}

// String is the address for people; what stands in a query is secret at times.
func (a webAddress) String() string {
	user := ""
	if a.user != "" {
		user = a.user + "@"
	}
	return a.scheme + "://" + user + a.url.Host + a.url.Path
}

// split returns the escaped path of the folder, with its slash, and of the file.
func (a webAddress) split() (folder, file string) {
	escaped := a.url.EscapedPath()
	i := strings.LastIndexByte(escaped, '/') + 1
	return escaped[:i], escaped[i:]
}

// name is that of the file; empty for a folder.
func (a webAddress) name() string {
	_, file := a.split()
	name, err := url.PathUnescape(file)
	if err != nil {
		return file
	}
	return name
}

// sibling is another file of the same folder.
func (a webAddress) sibling(name string) webAddress {
	folder, _ := a.split()
	return a.at(folder + url.PathEscape(name))
}

// folder is the folder that the file is in.
func (a webAddress) folder() webAddress {
	folder, _ := a.split()
	return a.at(folder)
}

// at is the address of another path, which is escaped.
func (a webAddress) at(escaped string) webAddress {
	u := *a.url
	u.RawQuery, u.RawPath = "", escaped
	u.Path, _ = url.PathUnescape(escaped) // it was parsed or escaped before
	a.url = &u
	return a
}

// query is the address with a query.
func (a webAddress) query(q string) webAddress {
	u := *a.url
	u.RawQuery = q
	a.url = &u
	return a
}
