package nbd

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Address says where an export is. [Parse] makes one from a URL.
type Address struct {
	// Network is "tcp" or "unix".
	Network string
	// Host and Port of a server on TCP; a port is never empty.
	Host, Port string
	// Socket is the path of a Unix socket; one that begins with @ is in Linux's
	// abstract namespace.
	Socket string
	// Export is the name of the export; empty: the server's default export.
	Export string
	// TLS is set when the connection must be encrypted.
	TLS bool
	// Certificates is the folder with the certificates to use; empty: none, the
	// system's authorities are trusted. See [Options.TLS].
	Certificates string
	// ServerName is the name in the server's certificate; empty: the host, or
	// "localhost" on a Unix socket.
	ServerName string
}

const (
	// defaultPort is NBD's (URI document, section "NBD URI authority").
	defaultPort = "10809"
	// maxName is the longest export name in bytes (section "Conventions", strings).
	maxName = 4096
	// maxSocket is the longest path of a Unix socket in bytes: sun_path of
	// unix(7) without the NUL at its end.
	maxSocket = 107
)

// Parse parses a URL of the forms
//
//	nbd://host[:port]/export
//	nbd+unix:///export?socket=PATH
//
// and the same with nbds in place of nbd, which may have the parameters
// tls-certificates=DIR and tls-hostname=NAME. Errors are of type
// [*AddressError]. The source of the form is the URI document, doc/uri.md of
// the NetworkBlockDevice project; tls-certificates is described in nbd_connect_uri(3).
func Parse(text string) (Address, error) {
	a, err := parse(text)
	if err != nil {
		return Address{}, &AddressError{err}
	}
	return a, nil
}

func parse(text string) (Address, error) {
	u, err := url.Parse(text)
	if err != nil {
		// Not err itself, which quotes all of the URL with a password in it.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return Address{}, err
	}
	a := Address{Network: "tcp"}
	switch u.Scheme {
	case "nbd":
	case "nbds":
		a.TLS = true
	case "nbd+unix":
		a.Network = "unix"
	case "nbds+unix":
		a.Network, a.TLS = "unix", true
	default:
		return a, fmt.Errorf("scheme %q is none of nbd, nbds, nbd+unix, nbds+unix", u.Scheme)
	}
	switch {
	case u.Opaque != "":
		return a, fmt.Errorf("it begins with %s://", u.Scheme)
	case u.User != nil:
		// It would be the identity for a pre-shared key, which crypto/tls lacks.
		return a, errors.New("a user is for TLS with pre-shared keys, which is not supported: use certificates")
	case u.Fragment != "":
		return a, errors.New("a # in an export name is written as %23")
	}
	a.Export = strings.TrimPrefix(u.Path, "/")
	switch {
	case len(a.Export) > maxName:
		return a, fmt.Errorf("the export name is longer than %d bytes", maxName)
	case !utf8.ValidString(a.Export) || strings.ContainsRune(a.Export, 0):
		return a, errors.New("the export name is not UTF-8 text")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return a, err
	}
	if err := a.parameters(query); err != nil {
		return a, err
	}
	if a.Network == "unix" {
		return a, a.unixPeer(u)
	}
	return a, a.tcpPeer(u)
}

// tcpPeer sets host and port.
func (a *Address) tcpPeer(u *url.URL) error {
	a.Host, a.Port = u.Hostname(), u.Port()
	if a.Port == "" {
		a.Port = defaultPort
	}
	port, err := strconv.ParseUint(a.Port, 10, 16)
	switch {
	case a.Host == "":
		return errors.New("no host; with a Unix socket it is nbd+unix:///export?socket=PATH")
	case err != nil || port == 0:
		return errors.New("a port is a number from 1 to 65535")
	case a.Socket != "":
		return fmt.Errorf("a socket is for %s+unix", u.Scheme)
	}
	return nil
}

// unixPeer checks the socket, and writes an abstract one as package net does.
func (a *Address) unixPeer(u *url.URL) error {
	if name, ok := strings.CutPrefix(a.Socket, "\x00"); ok {
		a.Socket = "@" + name
	} else if strings.HasPrefix(a.Socket, "@") {
		a.Socket = "./" + a.Socket
	}
	switch {
	case u.Host != "":
		return errors.New("a Unix socket has no host: three slashes are before the export")
	case a.Socket == "":
		return errors.New("no socket=PATH after a question mark")
	case len(a.Socket) > maxSocket:
		return fmt.Errorf("the socket's path is longer than %d bytes", maxSocket)
	case strings.ContainsRune(a.Socket, 0):
		return errors.New("the socket's path has a NUL in it")
	}
	return nil
}

// parameters reads what is behind the question mark. One that is not known is
// an error: it may be about security.
func (a *Address) parameters(query url.Values) error {
	for name, values := range query {
		if len(values) != 1 {
			return fmt.Errorf("more than one %s=", name)
		}
		value := values[0]
		tls := []string{"tls-certificates", "tls-hostname", "tls-type", "tls-verify-peer"}
		if slices.Contains(tls, name) && !a.TLS {
			return fmt.Errorf("%s= is for nbds", name)
		}
		switch name {
		case "socket":
			a.Socket = value
		case "tls-certificates":
			a.Certificates = value
		case "tls-hostname":
			a.ServerName = value
		case "tls-type":
			if value != "x509" {
				return fmt.Errorf("tls-type=%s: only x509 is supported", value)
			}
		case "tls-verify-peer":
			if value != "1" {
				return errors.New("the server's certificate is always verified: name its authority with tls-certificates=DIR")
			}
		case "tls-psk-file", "tls-username":
			return fmt.Errorf("%s=: pre-shared keys are not supported: use certificates", name)
		default:
			return fmt.Errorf("unknown parameter %q; a question mark in an export name is written as %%3F", name)
		}
	}
	return nil
}

// peer is the address as package net writes it.
func (a Address) peer() string {
	if a.Network == "unix" {
		return a.Socket
	}
	return net.JoinHostPort(a.Host, a.Port)
}

// String is a URL of the same export, without what concerns certificates.
func (a Address) String() string {
	u := url.URL{Scheme: "nbd", Path: "/" + a.Export}
	if a.TLS {
		u.Scheme = "nbds"
	}
	switch {
	case a.Network == "unix":
		u.Scheme += "+unix"
		socket := a.Socket
		if name, ok := strings.CutPrefix(socket, "@"); ok {
			socket = "\x00" + name
		}
		u.RawQuery = "socket=" + queryPath.Replace(url.QueryEscape(socket))
		return u.Scheme + "://" + u.RequestURI()
	case a.Port == defaultPort && strings.Contains(a.Host, ":"):
		u.Host = "[" + a.Host + "]"
	case a.Port == defaultPort:
		u.Host = a.Host
	default:
		u.Host = a.peer()
	}
	return u.String()
}

// queryPath undoes what escaping does to a path beyond need, and writes spaces
// as all parsers read them.
var queryPath = strings.NewReplacer("%2F", "/", "+", "%20")
