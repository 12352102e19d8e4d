package area

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flatimg/convert"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// memoryDisk is a disk that holds data throughout.
type memoryDisk []byte

var _ = (convert.Disk)(memoryDisk(nil))

func (d memoryDisk) Size() int64           { return int64(len(d)) }
func (d memoryDisk) Fingerprint() [32]byte { return sha256.Sum256(d) }

func (d memoryDisk) Extents(off, length int64) iter.Seq2[layers.Extent, error] {
	return func(yield func(layers.Extent, error) bool) {
		yield(layers.Extent{Offset: off, Length: length, Kind: volume.Data}, nil)
	}
}

func (d memoryDisk) AppendSegments(dst []layers.Segment, off, length int64) ([]layers.Segment, error) {
	return append(dst, layers.Segment{Length: length, Origin: layers.Literal, Bytes: d[off : off+length]}), nil
}

// TestPackedVerify changes single bytes of a packed file.
func TestPackedVerify(t *testing.T) {
	disk := make(memoryDisk, 1<<20)
	for i := range disk {
		disk[i] = byte(i >> 10)
	}
	spec, err := convert.ParseSpec("vmdk,subformat=streamOptimized")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "x.vmdk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := packedDisk(disk, spec)
	stats, err := p.make(context.Background(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	if err != nil || int64(len(content)) != stats.Size {
		t.Fatalf("%d bytes, %v, the report says %d", len(content), err, stats.Size)
	}
	verify := func(size int64) error {
		sum, err := p.verify(context.Background(), &source{File: f, size: size}, nil)
		if want := sha256.Sum256(content); err == nil && !bytes.Equal(sum, want[:]) {
			t.Errorf("SHA-256 is %x, want %x", sum, want)
		}
		return err
	}
	if err := verify(stats.Size); err != nil {
		t.Error(err)
	}
	if err := verify(stats.Size + 512); err == nil || !strings.Contains(err.Error(), "must have") {
		t.Errorf("another size gives %v", err)
	}
	for _, off := range []int64{0, 600, 70000, stats.Size - 1} {
		if _, err := f.WriteAt([]byte{content[off] + 1}, off); err != nil {
			t.Fatal(err)
		}
		if err := verify(stats.Size); err == nil || !strings.Contains(err.Error(), "differs from the image") {
			t.Errorf("byte %d changed gives %v", off, err)
		}
		if _, err := f.WriteAt(content[off:off+1], off); err != nil {
			t.Fatal(err)
		}
	}
}
