package servertest

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"flatimg/cmd/internal/servers"
)

// IsOf says whether a checksum is that of a file of these bytes.
func IsOf(c servers.Checksum, file []byte) bool {
	newHash := map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New, "md5": md5.New}[c.Algorithm]
	if newHash == nil {
		return false
	}
	h := newHash()
	if c.PartSize == 0 {
		h.Write(c.Before)
		h.Write(file)
		h.Write(c.After)
		return bytes.Equal(h.Sum(nil), c.Sum)
	}
	for len(file) > 0 {
		n := min(c.PartSize, int64(len(file)))
		part := newHash()
		part.Write(file[:n])
		h.Write(part.Sum(nil))
		file = file[n:]
	}
	return bytes.Equal(h.Sum(nil), c.Sum)
}
