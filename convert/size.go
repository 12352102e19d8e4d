package convert

import (
	"math"
	"strconv"
	"strings"
)

// units are the suffixes of sizes, powers of 1024 as in QEMU's options.
const units = "kMGTPE"

// parseSize parses a whole number of bytes with an optional suffix of [units];
// case does not matter.
func parseSize(text string) (bytes int64, ok bool) {
	shift := 0
	if n := len(text); n > 0 {
		if i := strings.IndexByte(strings.ToLower(units), text[n-1]|0x20); i >= 0 {
			text, shift = text[:n-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, false
	}
	return int64(n) << shift, true
}

// sizeText writes bytes so that parseSize reads it back: exact, with the
// largest unit that divides it.
func sizeText(bytes int64) string {
	unit := ""
	for i := 0; bytes != 0 && bytes%1024 == 0 && i < len(units); i++ {
		bytes, unit = bytes/1024, units[i:i+1]
	}
	return strconv.FormatInt(bytes, 10) + unit
}
