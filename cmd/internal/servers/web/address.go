package web

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"flatimg/cmd/internal/servers/transfer"
)

// Address is a file that a URL over HTTP names.
type Address struct {
	Scheme string   // as the user wrote it: "davs"
	URL    *url.URL // http or https, without user
	User   string
}

// schemes are those of HTTP, and what they are on the line.
func schemes() map[string]string {
	return map[string]string{
		"http": "http", "https": "https", "dav": "http", "davs": "https",
		"imageio+http": "http", "imageio+https": "https",
	}
}

// ParseAddress parses scheme://[user@]host[:port]/path[?query].
func ParseAddress(text string) (Address, error) {
	fail := func(what string) (Address, error) {
		return Address{}, transfer.Usage(errors.New(what), "write https://[user@]host[:port]/path; http, dav and davs are written alike")
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
		return Address{}, transfer.Usage(errors.New("the URL has a password in it"),
			"everybody on this machine could see it: use --password-file, or FLATIMG_PASSWORD")
	}
	a := Address{Scheme: u.Scheme, User: u.User.Username()}
	u.Scheme, u.User = schemes()[u.Scheme], nil
	a.URL = u
	switch {
	case u.Scheme == "" || u.Opaque != "" || u.Hostname() == "":
		return fail(fmt.Sprintf("%s: no host", a))
	case strings.HasSuffix(u.Host, ":") || u.Port() != "" && !transfer.ValidPort(u.Port()):
		return fail(fmt.Sprintf("%s: a port is a number from 1 to 65535", a))
	case u.Fragment != "":
		return fail(fmt.Sprintf("%s: a # in a path is written as %%23", a))
	case u.Path == "" || strings.ContainsRune(u.Path, 0):
		return fail(fmt.Sprintf("%s: no path", a))
	case a.Name() == "." || a.Name() == "..":
		return fail(fmt.Sprintf("%s: no file name", a))
	}
	return a, nil
}

// String is the address for people; what stands in a query is secret at times.
func (a Address) String() string {
	user := ""
	if a.User != "" {
		user = a.User + "@"
	}
	return a.Scheme + "://" + user + a.URL.Host + a.URL.Path
}

// Split returns the escaped path of the folder, with its slash, and of the file.
func (a Address) Split() (folder, file string) {
	escaped := a.URL.EscapedPath()
	i := strings.LastIndexByte(escaped, '/') + 1
	return escaped[:i], escaped[i:]
}

// Name is that of the file; empty for a folder.
func (a Address) Name() string {
	_, file := a.Split()
	name, err := url.PathUnescape(file)
	if err != nil {
		return file
	}
	return name
}

// Sibling is another file of the same folder.
func (a Address) Sibling(name string) Address {
	folder, _ := a.Split()
	return a.At(folder + url.PathEscape(name))
}

// Folder is the folder that the file is in.
func (a Address) Folder() Address {
	folder, _ := a.Split()
	return a.At(folder)
}

// At is the address of another path, which is escaped.
func (a Address) At(escaped string) Address {
	u := *a.URL
	u.RawQuery, u.RawPath = "", escaped
	u.Path, _ = url.PathUnescape(escaped) // it was parsed or escaped before
	a.URL = &u
	return a
}

// Query is the address with a query.
func (a Address) Query(q string) Address {
	u := *a.URL
	u.RawQuery = q
	a.URL = &u
	return a
}
