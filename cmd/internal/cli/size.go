package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

const suffixes = "kMGTPE"

// ParseSize parses a number of bytes with an optional suffix k, M, G, T, P or
// E, powers of 1024 as qemu-img has them; case does not matter, and "B" or
// "iB" may follow.
func ParseSize(text string) (int64, error) {
	number := strings.TrimRight(text, "bBiI")
	shift := 0
	if n := len(number); n > 0 {
		if i := strings.IndexByte(strings.ToLower(suffixes), number[n-1]|0x20); i >= 0 {
			shift = 10 * (i + 1)
			number = number[:n-1]
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || value < 0 || strings.ContainsAny(number, "eExXnN_") {
		return 0, fmt.Errorf("%q is not a size: use a number of bytes, or one with k, M, G or T", text)
	}
	bytes := value * math.Ldexp(1, shift)
	if bytes >= math.MaxInt64 {
		return 0, fmt.Errorf("size %q is too large", text)
	}
	return int64(bytes), nil
}

// FormatSize returns bytes for people: "64 MiB", "1.5 GiB", "512 B".
func FormatSize(bytes int64) string {
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes), -1
	for value >= 1024 && unit < len(suffixes)-1 {
		value /= 1024
		unit++
	}
	text := strconv.FormatFloat(value, 'f', 2, 64)
	text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	return fmt.Sprintf("%s %ciB", text, strings.ToUpper(suffixes)[unit])
}
