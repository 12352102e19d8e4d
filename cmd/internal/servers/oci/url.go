package oci

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"

	"flatimg/cmd/internal/servers/transfer"
)

// ref names an image at a registry.
type ref struct {
	scheme string // "http" or "https"
	plain  string // scheme of the URL as the user wrote it
	user   string // empty: none given
	host   string // with its port
	repo   string
	tag    string // or a digest, "sha256:…"
}

// Names as the distribution specification has them ("Pulling manifests").
var (
	repoPattern   = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern    = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	digestPattern = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// parseRef parses oci://[user@]host[:port]/repo[:tag]. In place of a tag,
// @sha256:… names an image for ever. A repo that ends with a slash is a folder,
// in which name, without what follows its last dot, is the repository.
//
// HTTP without TLS is for oci+http://, and for this machine unless certificates
// to trust are given.
func parseRef(text, name string, certificates bool) (ref, error) {
	const hint = "write oci://[user@]host[:port]/repo[:tag], in small letters"
	u, err := url.Parse(text)
	if err != nil {
		// Not err itself, which quotes all of text with a password in it.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return ref{}, transfer.Usage(fmt.Errorf("the oci:// URL: %w", err), hint)
	}
	if _, ok := u.User.Password(); ok {
		return ref{}, transfer.Usage(errors.New("the URL has a password in it"), "everybody on this machine could see it: use --password-file, or log in with podman or docker")
	}
	r := ref{scheme: "https", plain: u.Scheme, user: u.User.Username(), host: u.Host, repo: strings.TrimPrefix(u.Path, "/"), tag: "latest"}
	if u.Scheme == "oci+http" || isLoopback(u.Hostname()) && !certificates {
		r.scheme = "http"
	}
	if strings.HasSuffix(r.repo, "/") || r.repo == "" {
		r.repo += strings.TrimSuffix(name, path.Ext(name))
	}
	if repo, digest, ok := strings.Cut(r.repo, "@"); ok {
		r.repo, r.tag = repo, digest
	} else if repo, tag, ok := strings.Cut(r.repo, ":"); ok {
		r.repo, r.tag = repo, tag
	}
	switch {
	case u.Hostname() == "":
		err = errors.New("no host")
	case u.Port() != "" && !transfer.ValidPort(u.Port()):
		err = errors.New("a port is a number from 1 to 65535")
	case u.RawQuery != "" || u.Fragment != "":
		err = errors.New("no place for a question mark or a #")
	case !repoPattern.MatchString(r.repo) || len(r.repo) > 255:
		err = fmt.Errorf("%q can't name a repository", r.repo)
	case !tagPattern.MatchString(r.tag) && !digestPattern.MatchString(r.tag):
		err = fmt.Errorf("%q can't be a tag", r.tag)
	}
	if err != nil {
		return ref{}, transfer.Usage(fmt.Errorf("%s: %w", transfer.Redacted(text), err), hint)
	}
	return r, nil
}

func (r ref) String() string {
	separator := ":"
	if digestPattern.MatchString(r.tag) {
		separator = "@"
	}
	return r.plain + "://" + r.host + "/" + r.repo + separator + r.tag
}

// url returns that of something in the repository: "manifests/latest".
func (r ref) url(what string) *url.URL {
	host := r.host
	if host == "docker.io" {
		host = "registry-1.docker.io" // where its registry is
	}
	return &url.URL{Scheme: r.scheme, Host: host, Path: "/v2/" + r.repo + "/" + what}
}

// isLoopback says whether a host is this machine, without asking anybody.
func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
