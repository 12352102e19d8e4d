package servers

import (
	"errors"
	"strings"
	"testing"

	"flatimg/cmd/internal/cli"
)

func TestParseSFTP(t *testing.T) {
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
		target, path, err := parseSFTP(c.dest)
		if err != nil || target.user != c.user || target.host != c.host || target.port != c.port || path != c.path {
			t.Errorf("%s: %+v, %s, %v", c.dest, target, path, err)
		}
	}
	for _, dest := range []string{
		"sftp://", "sftp:///path", "sftp://host", "sftp://host:x/a", "sftp://me:secret@host/a", "sftp://me:secret@host:x/a",
		"sftp://-oProxyCommand=x/a", "sftp://-l@host/a", "sftp://host/a?b", "sftp://host/a#b", "sftp://host/%zz", "sftp://host/%00",
	} {
		_, _, err := parseSFTP(dest)
		e, ok := errors.AsType[*cli.Error](err)
		if !ok || e.Code != cli.ExitUsage || e.Hint == "" {
			t.Errorf("%s: %v, want an error with a hint and exit code %d", dest, err, cli.ExitUsage)
		} else if strings.Contains(e.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", dest, err)
		}
	}
}

func TestUnknownScheme(t *testing.T) {
	_, err := Open(t.Context(), "gopher://host/a", Options{})
	if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitUsage || !strings.Contains(e.Hint, "sftp://") {
		t.Errorf("%v, want an error that lists what there is", err)
	}
	for dest, want := range map[string]bool{
		"sftp://host/a": true, "x://": true, "./x://y": false, "/x://y": false, "a/b://c": false, "://x": false, "disk.raw": false,
	} {
		if got := IsURL(dest); got != want {
			t.Errorf("IsURL(%s) = %v", dest, got)
		}
	}
}

func TestShellQuote(t *testing.T) {
	for text, want := range map[string]string{
		"a b": "'a b'", "it's": `'it'\''s'`, "$(x)`y`": "'$(x)`y`'", "": "''",
	} {
		if got := shellQuote(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestTail(t *testing.T) {
	var b tail
	for range 1000 {
		b.Write([]byte("a banner of many lines\r\n"))
	}
	b.Write([]byte("Permission denied"))
	b.Write([]byte(" (publickey).\r\n"))
	if got, want := b.String(), "a banner of many lines; a banner of many lines; Permission denied (publickey)."; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if len(b.b) > tailBytes {
		t.Errorf("%d bytes kept", len(b.b))
	}
}
