package convert

import "math/bits"

// sectorSize is the unit in bytes of the virtual size in all formats.
const sectorSize = 512

// shiftUp returns n / 1<<bits, rounded up.
func shiftUp(n int64, bits uint) int64 { return (n + 1<<bits - 1) >> bits }

// roundUp rounds n up to a multiple of unit, a power of two.
func roundUp(n, unit int64) int64 { return (n + unit - 1) &^ (unit - 1) }

// log2 of a power of two.
func log2(n int64) uint { return uint(bits.TrailingZeros64(uint64(n))) }
