package layers

import (
	"crypto/sha256"
	"encoding/binary"
)

// Fingerprint names the state of the image: it stays the same until a file of
// the chain changes, and for copies of the files that keep their times. It is
// a SHA-256 over each volume's format, virtual size and open snapshot, and over
// the size and the modification time of each of its files, base first. Paths, devices and
// inodes are left out, so that an image that was moved is still the same one.
// No data is read, so what differs in nothing but its data has the same one.
func (im *Image) Fingerprint() [32]byte {
	var b []byte
	for _, l := range im.layers {
		b = binary.BigEndian.AppendUint32(b, uint32(len(l.Format())))
		b = append(b, l.Format()...)
		b = binary.BigEndian.AppendUint64(b, uint64(l.Size()))
		var snapshot string
		if s, ok := l.Volume.(interface{ SnapshotID() string }); ok {
			snapshot = s.SnapshotID()
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(snapshot)))
		b = append(b, snapshot...)
		b = binary.BigEndian.AppendUint32(b, uint32(len(l.Files())))
		for _, f := range l.Files() {
			b = binary.BigEndian.AppendUint64(b, uint64(f.Size()))
			b = binary.BigEndian.AppendUint64(b, uint64(f.ModTime().Unix()))
			b = binary.BigEndian.AppendUint32(b, uint32(f.ModTime().Nanosecond()))
		}
	}
	return sha256.Sum256(b)
}
