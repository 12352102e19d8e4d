package qcow2

import (
	"github.com/lima-vm/go-qcow2reader/image/qcow2"

	"flatimg/layers/volume"
)

// Backing returns the name of the backing file and its format as they are
// stored. An empty name: the image has none; an empty format: none is recorded.
func (v *Volume) Backing() (name, format string) { return v.header.backing, v.header.backingFormat }

// Info implements [volume.Describer].
func (v *Volume) Info() volume.Info {
	h := v.header
	info := volume.Info{
		ClusterSize:   v.clusterSize(),
		Backing:       h.backing,
		BackingFormat: h.backingFormat,
		Dirty:         h.has(featureDirty),
		Corrupt:       h.has(featureCorrupt),
	}
	compression := "zlib"
	if h.compression == qcow2.CompressionTypeZstd {
		compression = "zstd"
	}
	// The names and the presence of each key are those of qemu-img 7.2.
	if v.version2 {
		info.Specific = map[string]any{"compat": "0.10", "compression-type": compression, "refcount-bits": 1 << h.RefcountOrder}
	} else {
		info.Specific = map[string]any{
			"compat":           "1.1",
			"compression-type": compression,
			"lazy-refcounts":   h.CompatibleFeatures&compatibleLazy != 0,
			"refcount-bits":    1 << h.RefcountOrder,
			"corrupt":          info.Corrupt,
			"extended-l2":      v.extendedL2,
		}
	}
	if compression != "zlib" {
		info.Features = append(info.Features, "compression "+compression)
	}
	if v.extendedL2 {
		info.Features = append(info.Features, "extended L2")
	}
	if v.dataFile {
		raw := h.AutoclearFeatures&autoclearRawData != 0
		info.Specific["data-file"], info.Specific["data-file-raw"] = h.dataFile, raw
		info.Features = append(info.Features, "data file "+h.dataFile)
	}
	for _, s := range v.snapshots {
		info.Snapshots = append(info.Snapshots, s.Snapshot)
	}
	return info
}
