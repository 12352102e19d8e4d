package oci

import (
	"archive/tar"
	"bytes"
	"io"
	"time"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

const (
	// kubevirtID is the user and the group of the disk in a containerDisk: the
	// one that QEMU runs as (KubeVirt's user guide, "containerDisk").
	kubevirtID = 107
	// tarBlock is the unit of a tar file in bytes; two blocks of zeros end it
	// (POSIX, pax, "ustar Interchange Format").
	tarBlock = 512
)

// layer is a tar file with nothing but disk/ and disk/NAME in it. It is never
// made: only what stands before the source's bytes is.
type layer struct {
	head []byte
	src  servers.Source
	// size of the tar file in bytes.
	size int64
}

// newLayer lays out the tar file. It is the same whenever it is made of the same
// bytes, so that a registry has it once.
func newLayer(src servers.Source, name string) (*layer, error) {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	header := tar.Header{
		Typeflag: tar.TypeDir, Name: "disk/", Mode: 0o555, Uid: kubevirtID, Gid: kubevirtID, ModTime: time.Unix(0, 0),
	}
	if err := w.WriteHeader(&header); err != nil {
		return nil, err
	}
	header.Typeflag, header.Name, header.Mode, header.Size = tar.TypeReg, "disk/"+name, 0o440, src.Size()
	if err := w.WriteHeader(&header); err != nil {
		return nil, err
	}
	padded := (src.Size() + tarBlock - 1) / tarBlock * tarBlock
	return &layer{head.Bytes(), src, int64(head.Len()) + padded + 2*tarBlock}, nil
}

// fileOffset returns the offset of the source's byte that stands at off.
func (l *layer) fileOffset(off int64) int64 {
	return min(max(off-int64(len(l.head)), 0), l.src.Size())
}

// data returns how many bytes of data of the source stand before off.
func (l *layer) data(off int64) (int64, error) { return transfer.DataBefore(l.src, l.fileOffset(off)) }

// reader reads the bytes [off, end). It calls sent, which may be nil, for data
// of the source.
func (l *layer) reader(off, end int64, sent func(n int64)) io.Reader {
	head := bytes.NewReader(l.head[min(off, int64(len(l.head))):])
	file := &web.TellingReader{PieceReader: web.PieceReader{Src: l.src, Piece: web.Piece{Start: l.fileOffset(off), End: l.src.Size()}}, Sent: sent}
	return io.LimitReader(io.MultiReader(head, file, zeros{}), end-off)
}

// zeros reads as zeros without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
