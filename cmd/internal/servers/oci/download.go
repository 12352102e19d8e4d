package oci

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

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// download is the disk in an image at a registry. A layer comes in order, so
// that its digest can be compared: the read that reaches the file's end fails
// when the layer was another one.
//
// What is not read in order, after the line broke or an earlier run, begins anew
// in a layer that is packed. Of another one the bytes are asked for, and the
// digest is that of the file with what stands around it.
type download struct {
	*registry
	layer descriptor
	name  string
	size  int64
	// before is that of the [diskReader].
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

var _ = (servers.Summer)((*download)(nil))
var _ = (servers.Namer)((*download)(nil))

// OpenSource opens the image that a URL names for fetching.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	ref, err := parseRef(src, o.Name, o.CACert != "")
	if err != nil {
		return nil, err
	}
	client, err := newRegistry(ctx, ref, "pull", o)
	if err != nil {
		return nil, err
	}
	d := &download{registry: client, sum: sha256.New()}
	if err := transfer.NewRetrier(o).Meet(ctx, "look for the disk", func() error { return d.find(ctx) }); err != nil {
		d.Close()
		return nil, transfer.ServerError(ref.String(), "look for the disk", err)
	}
	return d, nil
}

// find looks for the disk, in the uppermost layer first: that is the one that
// counts.
func (d *download) find(ctx context.Context) error {
	image, err := d.pullManifest(ctx)
	if err != nil {
		return err
	}
	for i := len(image.Layers) - 1; i >= 0; i-- {
		d.layer = image.Layers[i]
		if !digestPattern.MatchString(d.layer.Digest) || d.layer.Size < 0 {
			return transfer.Lasting(fmt.Errorf("a layer of %d bytes with the digest %.100q is not supported", d.layer.Size, d.layer.Digest))
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
	return transfer.Lasting(errors.New("no file disk/NAME in the image: it is none of a virtual machine"))
}

// open opens the layer, to be read from the file's beginning. It stays open
// after the call that ctx belongs to.
func (d *download) open(ctx context.Context) error {
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
func (d *download) shut() {
	if d.disk != nil {
		d.end()
		d.disk.close()
		d.disk = nil
	}
}

func (d *download) String() string { return d.ref.String() }

// FileName implements [servers.Namer].
func (d *download) FileName() string { return d.name }

// Size implements [servers.Download].
func (d *download) Size() int64 { return d.size }

// Version implements [servers.Download]. There is none for a packed layer: going
// on with what an earlier run has fetched would save nothing.
func (d *download) Version() string {
	if d.before == nil {
		return ""
	}
	return d.layer.Digest
}

// Lanes implements [servers.Download].
func (d *download) Lanes() int { return 1 }

// Checksum implements [servers.Summer]. A registry has digests of layers only;
// what is in a layer that has its digest has the checksum that was computed on
// the way.
func (d *download) Checksum(ctx context.Context) (servers.Checksum, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	const by = "digest, by the registry"
	if d.verified {
		return servers.Checksum{Algorithm: "sha256", Sum: d.sum.Sum(nil), By: by}, nil
	}
	d.shut()
	if d.before == nil {
		return servers.Checksum{}, transfer.NoVerification(d.String(), "the layer was not read to its end")
	}
	sum, err := hex.DecodeString(strings.TrimPrefix(d.layer.Digest, "sha256:"))
	if err != nil {
		return servers.Checksum{}, err
	}
	var after bytes.Buffer
	off := int64(len(d.before)) + d.size
	if err := d.readBlob(ctx, &after, off, d.layer.Size-off); err != nil {
		return servers.Checksum{}, transfer.ServerError(d.String(), "read the layer's end", err)
	}
	return servers.Checksum{Algorithm: "sha256", Sum: sum, By: by, Before: d.before, After: after.Bytes()}, nil
}

// readBlob writes the bytes [off, off+length) of the layer to w.
func (d *download) readBlob(ctx context.Context, w io.Writer, off, length int64) error {
	if length == 0 {
		return nil
	}
	body, err := d.blob(ctx, d.layer, off, off+length)
	if err != nil {
		return err
	}
	defer body.Close()
	return transfer.CopyExactly(transfer.ContextWriter{Ctx: ctx, Writer: w}, body, length)
}

// Close implements [servers.Download].
func (d *download) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut()
	d.close()
	return nil
}

// Read implements [servers.Download].
func (d *download) Read(ctx context.Context, w io.Writer, off, length int64) error {
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
	return transfer.ServerError(d.String(), "read", err)
}

func (d *download) read(ctx context.Context, w io.Writer, off, length int64) error {
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
	n, err := io.CopyBuffer(io.MultiWriter(transfer.ContextWriter{Ctx: ctx, Writer: w}, d.sum), io.LimitReader(d.disk.file, length), make([]byte, web.BodyBuffer))
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
func (d *download) rewind(ctx context.Context, off int64) error {
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
		return transfer.Lasting(errors.New("the registry sends something else than before"))
	}
	d.off, d.sum, d.verified = off, sum, false
	return nil
}
