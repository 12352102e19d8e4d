package sftp

import (
	"errors"
	"strings"
	"testing"

	"flatimg/cmd/internal/cli"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		dest             string
		user, host, port string
		path             string
	}{
		{"sftp://host/a/b", "", "host", "", "/a/b"},
		{"sftp://me@host:22/a", "me", "host", "22", "/a"},
		{"SFTP://me@host/a%20b%3fc%23", "me", "host", "", "/a b?c#"},
		{"sftp://[::1]:2222/a", "", "::1", "2222", "/a"},
		{"sftp://host/~/a", "", "host", "", "./a"},
		{"sftp://host/~", "", "host", "", "/~"},
		{"sftp://host/a/", "", "host", "", "/a/"},
	} {
		target, path, err := parseURL(c.dest)
		if err != nil || target.User != c.user || target.Host != c.host || target.Port != c.port || path != c.path {
			t.Errorf("%s: %+v, %s, %v", c.dest, target, path, err)
		}
	}
	for _, dest := range []string{
		"sftp://", "sftp:///path", "sftp://host", "sftp://host:x/a", "sftp://me:secret@host/a", "sftp://me:secret@host:x/a",
		"sftp://-oProxyCommand=x/a", "sftp://-l@host/a", "sftp://host/a?b", "sftp://host/a#b", "sftp://host/%zz", "sftp://host/%00",
	} {
		_, _, err := parseURL(dest)
		e, ok := errors.AsType[*cli.Error](err)
		if !ok || e.Code != cli.ExitUsage || e.Hint == "" {
			t.Errorf("%s: %v, want an error with a hint and exit code %d", dest, err, cli.ExitUsage)
		} else if strings.Contains(e.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", dest, err)
		}
	}
}
