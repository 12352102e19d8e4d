package convert

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// uuid in the order of bytes in which it is written (RFC 9562, section 4).
type uuid [16]byte

// parseUUID parses the text form of RFC 9562: 8-4-4-4-12 hexadecimal digits.
func parseUUID(text string) (u uuid, ok bool) {
	groups := strings.Split(text, "-")
	lengths := []int{8, 4, 4, 4, 12}
	if len(groups) != len(lengths) {
		return uuid{}, false
	}
	for i, g := range groups {
		if len(g) != lengths[i] {
			return uuid{}, false
		}
	}
	b, err := hex.DecodeString(strings.Join(groups, ""))
	if err != nil {
		return uuid{}, false
	}
	return uuid(b), true
}

// guid returns u as Windows stores it: the first three fields little endian
// (MS-DTYP, section 2.3.4.2).
func (u uuid) guid() []byte {
	b := make([]byte, 0, len(u))
	b = binary.LittleEndian.AppendUint32(b, binary.BigEndian.Uint32(u[0:]))
	b = binary.LittleEndian.AppendUint16(b, binary.BigEndian.Uint16(u[4:]))
	b = binary.LittleEndian.AppendUint16(b, binary.BigEndian.Uint16(u[6:]))
	return append(b, u[8:]...)
}

// identity makes the identifiers of a target, which are the same each time.
type identity struct {
	seed  [32]byte
	given string // the option uuid; empty when there is none
}

// newIdentity returns the identity of src in a format with the given options.
func newIdentity(src Disk, format string, v values) identity {
	h := sha256.New()
	h.Write([]byte("flatimg identity\n" + format + "\n"))
	for _, name := range slices.Sorted(maps.Keys(v)) {
		o := v[name]
		if o.bytes > 0 {
			o.text = sizeText(o.bytes) // 64k and 65536 are the same
		}
		h.Write([]byte(name + "=" + o.text + "\n"))
	}
	fingerprint := src.Fingerprint()
	h.Write(fingerprint[:])
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(src.Size())))
	return identity{seed: [32]byte(h.Sum(nil)), given: v["uuid"].text}
}

// uuid returns the identifier for a use; that for the disk itself, "disk", can
// be given. Others are of version 8 (RFC 9562, section 5.8).
func (i identity) uuid(use string) uuid {
	if u, ok := parseUUID(i.given); ok && use == "disk" {
		return u
	}
	sum := sha256.Sum256(append(i.seed[:], use...))
	u := uuid(sum[:16])
	u[6] = u[6]&0x0f | 0x80 // version
	u[8] = u[8]&0x3f | 0x80 // variant
	return u
}

// String is the text form of RFC 9562.
func (u uuid) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// knownUUID parses a UUID of a specification.
func knownUUID(text string) uuid {
	u, ok := parseUUID(text)
	if !ok {
		panic("convert: internal error: UUID " + text)
	}
	return u
}
