package transfer

import (
	"crypto/rand"
	"strings"
)

// NameMax is the longest name in bytes that file systems take.
const NameMax = 255

// HiddenName returns a random hidden name for what becomes a file called name.
func HiddenName(name string) string {
	suffix := ".part-" + rand.Text()[:10]
	return "." + name[:min(len(name), NameMax-1-len(suffix))] + suffix
}

// IsHiddenName says whether name may be one that HiddenName has returned: what
// bears it can be removed.
func IsHiddenName(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, ".part-") && !strings.ContainsAny(name, "/\x00")
}
