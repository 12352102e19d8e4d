package transfer

import (
	"crypto/rand"
	"strings"
)

// nameMax is the longest name in bytes that file systems take.
const nameMax = 255

// HiddenName returns a random hidden name for what becomes a file called name.
func HiddenName(name string) string {
	suffix := ".part-" + rand.Text()[:10]
	return "." + name[:min(len(name), nameMax-1-len(suffix))] + suffix
}

// IsHiddenName says whether name may be one that HiddenName has returned: what
// bears it can be removed.
func IsHiddenName(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, ".part-") && !strings.ContainsAny(name, "/\x00")
}
