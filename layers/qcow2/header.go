package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/lima-vm/go-qcow2reader/image/qcow2"
	qcow2log "github.com/lima-vm/go-qcow2reader/log"

	"flatimg/layers/volume"
)

// Limits of the header, from the qcow2 specification and, where it names
// none, those of QEMU (block/qcow2.h).
const (
	headerLengthV2  = 72  // "Header", version 2
	headerLengthV3  = 104 // "Header", version 3: the least header_length
	compressionByte = 104 // offset of compression_type
	minClusterBits  = 9
	maxClusterBits  = 21
	minExtendedBits = 14       // extended L2: 32 subclusters of at least 512 bytes
	maxL1Bytes      = 32 << 20 // QCOW_MAX_L1_SIZE
	maxBackingName  = 1023     // "backing_file_size"
	maxFormatName   = 15       // QEMU's buffer for a format's name
	maxSnapshots    = 65536    // QCOW_MAX_SNAPSHOTS
	sectorSize      = 512
)

// Bits of incompatible_features and autoclear_features ("Header").
const (
	featureDirty       = 1 << qcow2.IncompatibleFeaturesDirtyBit
	featureCorrupt     = 1 << qcow2.IncompatibleFeaturesCorruptBit
	featureDataFile    = 1 << qcow2.IncompatibleFeaturesExternalDataFileBit
	featureCompression = 1 << qcow2.IncompatibleFeaturesCompressionTypeBit
	featureExtendedL2  = 1 << qcow2.IncompatibleFeaturesExtendedL2EntriesBit
	featuresKnown      = featureDirty | featureCorrupt | featureDataFile | featureCompression | featureExtendedL2

	autoclearRawData = 1 << qcow2.AutoclearFeaturesRawExternalBit
	compatibleLazy   = 1 << qcow2.CompatibleFeaturesLazyRefcountsBit
)

// header is a header whose fields have been checked.
type header struct {
	qcow2.HeaderFieldsV2
	qcow2.HeaderFieldsV3 // zero for version 2, but for RefcountOrder and HeaderLength
	compression          qcow2.CompressionType

	backing       string // as stored; empty: none
	backingFormat string // as stored; empty: not recorded
	dataFile      string // as stored; empty: none
}

func (h *header) clusterSize() int64      { return 1 << h.ClusterBits }
func (h *header) has(feature uint64) bool { return uint64(h.IncompatibleFeatures)&feature != 0 }

// diskSize in bytes: whole sectors.
func diskSize(size uint64) int64 { return int64(size &^ (sectorSize - 1)) }

func init() {
	// The library warns on standard error of what is checked here.
	qcow2log.SetWarnFunc(func(string) {})
}

// readHeader reads and checks the header, its extensions and the backing
// file's name, all of which lie in the first cluster ("Header extensions").
func readHeader(file *volume.File) (*header, error) {
	head := make([]byte, min(file.Size(), headerLengthV2))
	if _, err := file.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(head, []byte(qcow2.Magic)) {
		return nil, volume.ErrNotThisFormat
	}
	if len(head) < headerLengthV2 {
		return nil, fmt.Errorf("%s: truncated: %d bytes hold no qcow2 header", file.Path(), len(head))
	}
	h := &header{}
	decode(head, &h.HeaderFieldsV2)
	if err := h.checkBasics(); err != nil {
		return nil, inFile(file, err)
	}
	head = make([]byte, min(file.Size(), h.clusterSize()))
	if _, err := file.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if err := h.parseRest(head); err != nil {
		return nil, inFile(file, err)
	}
	return h, nil
}

// decode reads a structure of fixed size from the start of b, which is long
// enough.
func decode(b []byte, into any) {
	if _, err := binary.Decode(b, binary.BigEndian, into); err != nil {
		panic("qcow2: internal error: " + err.Error())
	}
}

// checkBasics checks the fields that both versions have, as far as they stand
// alone.
func (h *header) checkBasics() error {
	if h.Version != 2 && h.Version != 3 {
		return fmt.Errorf("qcow2 version %d is not supported, only 2 and 3", h.Version)
	}
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return fmt.Errorf("cluster_bits is %d, not within %d..%d", h.ClusterBits, minClusterBits, maxClusterBits)
	}
	switch h.CryptMethod {
	case qcow2.CryptMethodNone:
	case qcow2.CryptMethodAES, qcow2.CryptMethodLUKS:
		return fmt.Errorf("the image is encrypted (%s), which is not supported; decrypt it with qemu-img convert", strings.ToUpper(h.CryptMethod.String()))
	default:
		return fmt.Errorf("unknown encryption method %d", uint32(h.CryptMethod))
	}
	if h.Size > math.MaxInt64 {
		return fmt.Errorf("virtual size %#x is too large", h.Size)
	}
	if h.NbSnapshots > maxSnapshots {
		return fmt.Errorf("%d snapshots are more than the limit of %d", h.NbSnapshots, maxSnapshots)
	}
	return nil
}

// parseRest checks the rest of the header; head is the first cluster, or the
// file when that is shorter.
func (h *header) parseRest(head []byte) error {
	h.RefcountOrder, h.HeaderLength = 4, headerLengthV2
	if h.Version == 3 {
		if len(head) < headerLengthV3 {
			return fmt.Errorf("truncated: %d bytes hold no qcow2 header of version 3", len(head))
		}
		decode(head[headerLengthV2:], &h.HeaderFieldsV3)
		if h.HeaderLength < headerLengthV3 || h.HeaderLength%8 != 0 || int64(h.HeaderLength) > h.clusterSize() {
			return fmt.Errorf("header_length %d is not a multiple of 8 within %d..%d", h.HeaderLength, headerLengthV3, h.clusterSize())
		}
		if int64(h.HeaderLength) > int64(len(head)) {
			return fmt.Errorf("truncated: the header of %d bytes is longer than the file", h.HeaderLength)
		}
		if h.RefcountOrder > 6 {
			return fmt.Errorf("refcount_order %d is more than 6", h.RefcountOrder)
		}
		if h.HeaderLength > compressionByte {
			h.compression = qcow2.CompressionType(head[compressionByte])
		}
	}
	// The extensions end where the backing file's name begins: images of old
	// versions of QEMU have the name right behind the header and no end mark.
	area := head
	if h.BackingFileOffset != 0 && h.BackingFileOffset < uint64(len(head)) {
		area = head[:max(h.BackingFileOffset, uint64(h.HeaderLength))]
	}
	if err := h.parseExtensions(area); err != nil {
		return err
	}
	if err := h.checkFeatures(); err != nil {
		return err
	}
	return h.parseBacking(head)
}

func (h *header) checkFeatures() error {
	switch {
	case h.has(featureCompression) != (h.compression != qcow2.CompressionTypeZlib):
		return fmt.Errorf("compression type %d contradicts the incompatible feature bit %d", h.compression, qcow2.IncompatibleFeaturesCompressionTypeBit)
	case h.compression > qcow2.CompressionTypeZstd:
		return fmt.Errorf("compression type %d is not supported", h.compression)
	case h.has(featureExtendedL2) && h.ClusterBits < minExtendedBits:
		return fmt.Errorf("extended L2 entries need clusters of at least 16 KiB, these have %d bytes", h.clusterSize())
	case h.has(featureDataFile) && h.dataFile == "":
		return errors.New("the image keeps its data in an external file, but does not name it")
	}
	if !h.has(featureDataFile) {
		h.dataFile = ""
	}
	return nil
}

// parseBacking reads the name of the backing file ("backing_file_offset").
func (h *header) parseBacking(head []byte) error {
	if h.BackingFileOffset == 0 || h.BackingFileSize == 0 {
		h.backingFormat = ""
		return nil
	}
	if h.BackingFileSize > maxBackingName {
		return fmt.Errorf("the backing file's name has %d bytes, more than %d", h.BackingFileSize, maxBackingName)
	}
	if h.BackingFileOffset > uint64(len(head)) || uint64(len(head))-h.BackingFileOffset < uint64(h.BackingFileSize) {
		return fmt.Errorf("the backing file's name at offset %#x lies outside the first cluster", h.BackingFileOffset)
	}
	name := head[h.BackingFileOffset:][:h.BackingFileSize]
	// QEMU takes it as a C string.
	name, _, _ = bytes.Cut(name, []byte{0})
	h.backing = string(name)
	return nil
}

// parseExtensions reads the header extensions ("Header extensions") and checks
// the incompatible features against the names that they give.
func (h *header) parseExtensions(head []byte) error {
	extensions, err := readExtensions(head, h)
	if err != nil {
		return err
	}
	unknown := uint64(h.IncompatibleFeatures) &^ featuresKnown
	var names []string
	for _, e := range extensions {
		text, _ := e.Data.(string)
		switch e.Type {
		case qcow2.HeaderExtensionTypeBackingFileFormatNameString:
			if e.Length > maxFormatName {
				return fmt.Errorf("the backing file's format has a name of %d bytes, more than %d", e.Length, maxFormatName)
			}
			h.backingFormat = text
		case qcow2.HeaderExtensionTypeExternalDataFileNameString:
			if e.Length > maxBackingName {
				return fmt.Errorf("the data file's name has %d bytes, more than %d", e.Length, maxBackingName)
			}
			h.dataFile = text
		case qcow2.HeaderExtensionTypeFeatureNameTable:
			table, _ := e.Data.([]qcow2.FeatureNameTableEntry)
			for _, f := range table {
				if f.Type == qcow2.FeatureNameTableEntryTypeIncompatible && f.Bit < 64 && unknown&(1<<f.Bit) != 0 {
					names = append(names, fmt.Sprintf("%q", f.Name))
				}
			}
		}
	}
	if unknown != 0 {
		return fmt.Errorf("the image uses unknown incompatible features %s (bits %#x)", strings.Join(names, ", "), unknown)
	}
	return nil
}

// readExtensions has the library parse the extensions. It sees a copy of the
// first cluster that is neutral where the library would follow the header:
// no backing file, no feature, an L1 table of one empty entry.
func readExtensions(head []byte, h *header) ([]qcow2.HeaderExtension, error) {
	if err := checkExtensions(head, int(h.HeaderLength)); err != nil {
		return nil, err
	}
	clean := h.HeaderFieldsV2
	clean.BackingFileOffset, clean.BackingFileSize = 0, 0
	clean.NbSnapshots = 0
	clean.L1Size, clean.L1TableOffset = 1, uint64(h.clusterSize())
	safe := append([]byte(nil), head...)
	if _, err := binary.Encode(safe, binary.BigEndian, clean); err != nil {
		return nil, err
	}
	if h.Version == 3 {
		clear(safe[headerLengthV2 : headerLengthV2+24]) // the three feature fields
		if h.HeaderLength > compressionByte {
			safe[compressionByte] = 0
		}
	}
	img, err := qcow2.Open(zeroPadded(safe), nil)
	if err != nil {
		return nil, err
	}
	if err := img.Readable(); err != nil {
		return nil, err
	}
	return img.HeaderExtensions, nil
}

// checkExtensions checks that the chain of extensions from off on ends within
// the first cluster.
func checkExtensions(head []byte, off int) error {
	for {
		if len(head)-off < 8 {
			// QEMU, too, takes the end of the cluster for the end.
			return nil
		}
		kind := binary.BigEndian.Uint32(head[off:])
		length := int64(binary.BigEndian.Uint32(head[off+4:]))
		off += 8
		if kind == uint32(qcow2.HeaderExtensionTypeEnd) {
			return nil
		}
		if length > int64(len(head)-off) {
			return fmt.Errorf("the header extension at offset %#x has %d bytes and runs past the first cluster", off-8, length)
		}
		off += int(length+7) &^ 7
		if off > len(head) {
			return nil
		}
	}
}

// zeroPadded is a reader of bytes that are followed by zeros without end.
type zeroPadded []byte

func (z zeroPadded) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n := 0
	if off < int64(len(z)) {
		n = copy(p, z[off:])
	}
	clear(p[n:])
	return len(p), nil
}
