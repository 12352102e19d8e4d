package transfer

import (
	"net/url"
	"strconv"
	"strings"
)

// Redacted returns a URL as it can be shown: without a password.
func Redacted(text string) string {
	u, err := url.Parse(text)
	if err == nil {
		return u.Redacted()
	}
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			return scheme + "://xxxxx@" + rest[i+1:]
		}
	}
	return text
}

// SchemeOf returns the scheme of a URL. A path that has "://" in it is one when
// it starts with a slash or a dot.
func SchemeOf(dest string) (string, bool) {
	name, _, ok := strings.Cut(dest, "://")
	if !ok || name == "" || strings.ContainsAny(name, "/.") {
		return "", false
	}
	return strings.ToLower(name), true
}

// ValidPort says whether a text is the number of a port.
func ValidPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}
