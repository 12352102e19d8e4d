package web

import (
	"strings"
	"testing"

	"flatimg/cmd/internal/cli"
)

func TestParseAddress(t *testing.T) {
	for _, c := range []struct{ url, shown, wire, name string }{
		{"http://h/a/b.raw", "http://h/a/b.raw", "http://h/a/b.raw", "b.raw"},
		{"davs://me@h:8443/a%20b%3f/", "davs://me@h:8443/a b?/", "https://h:8443/a%20b%3f/", ""},
		{"DAV://[::1]:80/x%2fy", "dav://[::1]:80/x/y", "http://[::1]:80/x%2fy", "x/y"},
		{"https://h/a?signature=secret", "https://h/a", "https://h/a?signature=secret", "a"},
	} {
		a, err := ParseAddress(c.url)
		if err != nil || a.String() != c.shown || a.URL.String() != c.wire || a.Name() != c.name {
			t.Errorf("%s: %s, %s, %q, %v", c.url, a, a.URL, a.Name(), err)
		}
	}
	for _, url := range []string{
		"http://", "http:///a", "http://h", "http://h:/a", "http://h:0/a", "http://h:99999/a", "http://me:secret@h/a",
		"http://me:secret@h:x/a", "http://h/a#b", "http://h/%00", "http://h/%zz", "http://h/..", "http:h/a",
	} {
		_, err := ParseAddress(url)
		if err == nil || cli.ExitCode(err) != cli.ExitUsage || cli.Hint(err) == "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
	a, _ := ParseAddress("http://h/a%20b/c?q")
	if got := a.Sibling(".c d%").URL.String(); got != "http://h/a%20b/.c%20d%25" {
		t.Errorf("sibling %s", got)
	}
}
