package servers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"
)

// ociDownload is the disk in an image at a registry. A layer comes in order, so
// that its digest can be compared: the read that reaches the file's end fails
// when the layer was another one.
//
// What is not read in order, after the line broke or an earlier run, begins anew
// in a layer that is packed. Of another one the bytes are asked for, and the
// digest is that of the file with what stands around it.
type ociDownload struct {
	*ociClient
	layer descriptor
	name  string
	size  int64
	// before is that of the diskReader.
	before []byte

	mu   sync.Mutex
	disk *diskReader // nil: none is open
	off  int64       // up to where the file was read, in bytes
	sum  hash.Hash   // SHA-256 over what was
	// end cancels what goes on with disk.
	end context.CancelFunc
	// verified says that the layer that sum comes from has its digest.
	verified bool
}

var _ = (Summer)((*ociDownload)(nil))
var _ = (Namer)((*ociDownload)(nil))

func openOCISource(ctx context.Context, src string, o Options) (Download, error) {
	ref, err := parseOCI(src, o.Name, o.CACert != "")
	if err != nil {
		return nil, err
	}
	client, err := newOCIClient(ctx, ref, "pull", o)
	if err != nil {
		return nil, err
	}
	d := &ociDownload{ociClient: client, sum: sha256.New()}
	if err := newRetrier(o).meet(ctx, "look for the disk", func() error { return d.find(ctx) }); err != nil {
		d.Close()
		return nil, serverError(ref.String(), "look for the disk", err)
	}
	return d, nil
}

// find looks for the disk, in the uppermost layer first: that is the one that
// counts.
func (d *ociDownload) find(ctx context.Context) error {
	image, err := d.pullManifest(ctx)
	if err != nil {
		return err
	}
	for i := len(image.Layers) - 1; i >= 0; i-- {
		d.layer = image.Layers[i]
		if !ociDigest.MatchString(d.layer.Digest) || d.layer.Size < 0 {
			return lasting{fmt.Errorf("a layer of %d bytes with the digest %.100q is not supported", d.layer.Size, d.layer.Digest)}
		}
		err := d.open(ctx)
		if err == nil {
			d.name, d.size, d.before = d.disk.name, d.disk.size, d.disk.before
			return nil
		}
		if !errors.Is(err, errNoDisk) {
			return err
		}
	}
	return lasting{errors.New("no file disk/NAME in the image: it is none of a virtual machine")}
}

// open opens the layer, to be read from the file's beginning. It stays open
// after the call that ctx belongs to.
func (d *ociDownload) open(ctx context.Context) error {
	d.shut()
	own, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	defer stop()
	disk, err := d.openDisk(own, d.layer)
	if err != nil {
		end()
		return err
	}
	d.disk, d.end = disk, end
	return nil
}

// shut closes the layer.
func (d *ociDownload) shut() {
	if d.disk != nil {
		d.end()
		d.disk.close()
		d.disk = nil
	}
}

func (d *ociDownload) String() string { return d.ref.String() }

// FileName implements [Namer].
func (d *ociDownload) FileName() string { return d.name }

// Size implements [Download].
func (d *ociDownload) Size() int64 { return d.size }

// Version implements [Download]. There is none for a packed layer: going on with
// what an earlier run has fetched would save nothing.
func (d *ociDownload) Version() string {
	if d.before == nil {
		return ""
	}
	return d.layer.Digest
}

// Lanes implements [Download].
func (d *ociDownload) Lanes() int { return 1 }

// Checksum implements [Summer]. A registry has digests of layers only; what is
// in a layer that has its digest has the checksum that was computed on the way.
func (d *ociDownload) Checksum(ctx context.Context) (Checksum, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	const by = "digest, by the registry"
	if d.verified {
		return Checksum{Algorithm: "sha256", Sum: d.sum.Sum(nil), By: by}, nil
	}
	d.shut()
	if d.before == nil {
		return Checksum{}, noVerification(d.String(), "the layer was not read to its end")
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(d.layer.Digest, "sha256:"))
	if err != nil {
		return Checksum{}, err
	}
	var after bytes.Buffer
	off := int64(len(d.before)) + d.size
	if err := d.readBlob(ctx, &after, off, d.layer.Size-off); err != nil {
		return Checksum{}, serverError(d.String(), "read the layer's end", err)
	}
	return Checksum{Algorithm: "sha256", Sum: sum, By: by, Before: d.before, After: after.Bytes()}, nil
}

// readBlob writes the bytes [off, off+length) of the layer to w.
func (d *ociDownload) readBlob(ctx context.Context, w io.Writer, off, length int64) error {
	if length == 0 {
		return nil
	}
	body, err := d.blob(ctx, d.layer, off, off+length)
	if err != nil {
		return err
	}
	defer body.Close()
	return copyExactly(contextWriter{ctx, w}, body, length)
}

// Close implements [Download].
func (d *ociDownload) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut()
	d.close()
	return nil
}

// Read implements [Download].
func (d *ociDownload) Read(ctx context.Context, w io.Writer, off, length int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if length < 0 {
		length = d.size - off
	}
	if off < 0 || off+length > d.size {
		return fmt.Errorf("%s: the bytes from %d to %d are not in it", d, off, off+length)
	}
	err := d.read(ctx, w, off, length)
	if err != nil {
		d.shut()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return serverError(d.String(), "read", err)
}

func (d *ociDownload) read(ctx context.Context, w io.Writer, off, length int64) error {
	if d.disk == nil || off != d.off {
		if d.before != nil {
			d.shut()
			d.verified = false
			return d.readBlob(ctx, w, int64(len(d.before))+off, length)
		}
		if err := d.rewind(ctx, off); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, d.end)
	defer stop()
	// What w has got counts, also when it is less.
	n, err := io.CopyBuffer(io.MultiWriter(contextWriter{ctx, w}, d.sum), io.LimitReader(d.disk.file, length), make([]byte, bodyBuffer))
	d.off += n
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	if err != nil || d.off < d.size {
		return err
	}
	err = d.disk.finish()
	d.verified = err == nil
	return err
}

// rewind opens the layer anew and goes to off. When that is where an earlier
// read ended, what comes before must be the same: else the digest would not be
// that of what was read.
func (d *ociDownload) rewind(ctx context.Context, off int64) error {
	if err := d.open(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, d.end)
	defer stop()
	sum := sha256.New()
	if _, err := io.CopyN(sum, d.disk.file, off); err != nil {
		return err
	}
	if off == d.off && !bytes.Equal(sum.Sum(nil), d.sum.Sum(nil)) {
		return lasting{errors.New("the registry sends something else than before")}
	}
	d.off, d.sum, d.verified = off, sum, false
	return nil
}
