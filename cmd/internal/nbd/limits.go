package nbd

import "math"

// Blocks are the sizes of requests that a server takes, in bytes; section
// "Block size constraints".
type Blocks struct {
	// Minimum divides offset and length of each request on the wire, and the
	// size of the export. Methods of [Client] take any range all the same.
	Minimum int64
	// Preferred is the smallest size that is efficient, a multiple of Minimum.
	Preferred int64
	// Maximum is the most that one read or write carries, a multiple of
	// Minimum; at most 32 MiB.
	Maximum int64
}

const (
	// maxPayload is what servers take that state no maximum (section "Block
	// size constraints").
	maxPayload = 32 << 20
	// sector is the smallest block that all servers take (same section).
	sector = 512
	// maxMinimum is the largest minimum block (same section).
	maxMinimum = 64 << 10
	// unlimited is the maximum of a server that has none (same section).
	unlimited = math.MaxUint32
	// maxZeroes is the most that one WRITE_ZEROES covers. A server that has to
	// write zeros for it stays well within the timeout.
	maxZeroes = 1 << 30
	// maxStatus is the most that one BLOCK_STATUS asks about; the length on the
	// wire has 32 bits.
	maxStatus = 1 << 31
)

// defaultBlocks are the sizes for a server that states none.
func defaultBlocks(size int64) Blocks {
	b := Blocks{Minimum: sector, Preferred: 4096, Maximum: maxPayload}
	if size%sector != 0 {
		b.Minimum = 1 // else its end could not be reached
	}
	return b
}

// statedBlocks checks the sizes that a server states.
func statedBlocks(minimum, preferred, maximum uint32) (Blocks, error) {
	powerOfTwo := func(n uint32) bool { return n != 0 && n&(n-1) == 0 }
	switch {
	case !powerOfTwo(minimum) || minimum > maxMinimum,
		!powerOfTwo(preferred) || preferred < minimum,
		maximum != unlimited && (maximum < minimum || maximum%minimum != 0):
		return Blocks{}, violation("block sizes %d, %d, %d (minimum, preferred, maximum)", minimum, preferred, maximum)
	}
	return Blocks{
		Minimum:   int64(minimum),
		Preferred: int64(preferred),
		Maximum:   min(int64(maximum), maxPayload),
	}, nil
}

// cut divides a range of length bytes at off into a head that begins inside of a
// block and ends in it, whole blocks, and a tail that ends inside of a block. It
// returns their lengths.
func cut(off, length, block int64) (head, whole, tail int64) {
	if rest := off % block; rest != 0 {
		head = min(length, block-rest)
	}
	tail = (length - head) % block
	return head, length - head - tail, tail
}
