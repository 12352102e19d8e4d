package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// download is an object in the version that it had when it was opened.
type download struct {
	*object
	info minio.ObjectInfo
}

var _ = (servers.Summer)((*download)(nil))

// OpenSource opens the object that a URL names for fetching.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	l, err := parseURL(src)
	if err != nil {
		return nil, err
	}
	if l.isFolder() {
		return nil, transfer.Usage(fmt.Errorf("%s: names no object", l), "write s3://bucket/key")
	}
	object, err := newObject(ctx, l, o)
	if err != nil {
		return nil, err
	}
	var info minio.ObjectInfo
	there := false
	err = transfer.NewRetrier(o).Meet(ctx, "look at it", func() (err error) {
		info, there, err = object.stat(ctx)
		return err
	})
	switch {
	case err == nil && !there:
		err = &failure{code: "NoSuchKey", text: "there is no such object"}
	case err == nil && (info.Size < 0 || info.ETag == ""):
		err = errors.New("the server tells no size or no ETag of it")
	}
	if err != nil {
		object.close()
		return nil, fail(object.String(), "look at it", err)
	}
	return &download{object, info}, nil
}

// Size implements [servers.Download].
func (d *download) Size() int64 { return d.info.Size }

// Version implements [servers.Download].
func (d *download) Version() string {
	if d.info.VersionID == "" {
		return d.info.ETag
	}
	return d.info.ETag + " " + d.info.VersionID
}

// Lanes implements [servers.Download].
func (d *download) Lanes() int { return d.lanes }

// Read implements [servers.Download].
func (d *download) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = d.info.Size - off
	}
	if off < 0 || length < 0 || length > d.info.Size-off {
		return fmt.Errorf("%s: bytes %d to %d of %d", d, off, off+length, d.info.Size)
	}
	if length == 0 {
		return nil
	}
	err := d.read(ctx, w, off, length)
	if hasCode(err, "PreconditionFailed", "NoSuchKey", "NoSuchVersion") {
		return &cli.Error{
			Err:  fmt.Errorf("%s: was changed or removed meanwhile: %w", d, err),
			Hint: "begin anew, and leave it alone meanwhile",
			Code: cli.ExitServer,
		}
	}
	return fail(d.String(), fmt.Sprintf("read it at offset %#x", off), err)
}

func (d *download) read(ctx context.Context, w io.Writer, off, length int64) error {
	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	o := minio.GetObjectOptions{VersionID: d.info.VersionID}
	if err := errors.Join(o.SetMatchETag(d.info.ETag), o.SetRange(off, off+length-1)); err != nil {
		return transfer.Lasting(err)
	}
	body, _, header, err := d.core.GetObject(asked, d.bucket, d.key, o)
	if err != nil {
		return toFailure(err)
	}
	defer body.Close()
	// A server that knows no ranges sends all.
	want := fmt.Sprintf("bytes %d-%d/%d", off, off+length-1, d.info.Size)
	if got := header.Get("Content-Range"); got != want && (got != "" || length != d.info.Size) {
		return transfer.Lasting(fmt.Errorf("the server answers %q for %q", web.OneLine("", got), want))
	}
	limited := io.LimitReader(web.IdleReader{R: body, Idle: web.IdleTimeout, Cancel: cancel}, length)
	n, err := io.CopyBuffer(transfer.OnlyWriter{Writer: w}, limited, make([]byte, 1<<20))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case asked.Err() != nil:
		return transfer.Passing(fmt.Errorf("nothing has come for %v", web.IdleTimeout))
	case err == nil && n < length:
		return transfer.Passing(io.ErrUnexpectedEOF)
	}
	return err
}

// Checksum implements [servers.Summer]. That of an object that came in parts is
// one of their checksums.
func (d *download) Checksum(ctx context.Context) (servers.Checksum, error) {
	const by = "the server"
	if sum, ok := wholeSHA256(d.info); ok {
		return servers.Checksum{Algorithm: "sha256", Sum: sum, By: by}, nil
	}
	encrypted := strings.HasPrefix(d.info.Headers.Get("X-Amz-Server-Side-Encryption"), "aws:kms") ||
		d.info.Headers.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != ""
	if sum, ok := md5ETag(d.info.ETag); ok && !encrypted {
		return servers.Checksum{Algorithm: "md5", Sum: sum, By: by}, nil
	}
	c := servers.Checksum{Algorithm: "sha256", By: by}
	text, count, _ := strings.Cut(d.info.ChecksumSHA256, "-")
	var err error
	if c.Sum, err = base64.StdEncoding.DecodeString(text); err != nil || len(c.Sum) != sha256.Size {
		c.Algorithm = "md5"
		text, count, _ = strings.Cut(d.info.ETag, "-")
		var ok bool
		if c.Sum, ok = md5ETag(text); !ok || encrypted {
			return servers.Checksum{}, transfer.NoVerification(d.String(), "the server tells no checksum")
		}
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err == nil {
		c.PartSize, err = d.partSize(ctx, n)
	}
	if err != nil || c.PartSize == 0 {
		return servers.Checksum{}, transfer.NoVerification(d.String(), "the server has a checksum of its parts, and does not tell their size")
	}
	return c, nil
}

// partSize returns the size of all parts but the last one of an object of so
// many; 0: they are not alike, or the server does not tell.
func (d *download) partSize(ctx context.Context, count int64) (int64, error) {
	sizes := make(map[int64]int64)
	for _, n := range []int64{1, count} {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		o := minio.StatObjectOptions{VersionID: d.info.VersionID, PartNumber: int(n)}
		if err := o.SetMatchETag(d.info.ETag); err != nil {
			return 0, err
		}
		info, err := d.core.StatObject(ctx, d.bucket, d.key, o)
		if err != nil {
			return 0, toFailure(err)
		}
		sizes[n] = info.Size
	}
	size := sizes[1]
	if count < 1 || count > maxParts || size <= 0 || (count-1)*size+sizes[count] != d.info.Size || sizes[count] > size {
		return 0, nil
	}
	return size, nil
}

// wholeSHA256 returns the SHA-256 of an object where the server tells one that
// is not made of those of its parts.
func wholeSHA256(info minio.ObjectInfo) ([]byte, bool) {
	if info.ChecksumMode == minio.ChecksumCompositeMode.String() {
		return nil, false
	}
	// One of parts ends with their number, and is no base64.
	sum, err := base64.StdEncoding.DecodeString(info.ChecksumSHA256)
	return sum, err == nil && len(sum) == 32
}

// Close implements [servers.Download].
func (d *download) Close() error {
	d.close()
	return nil
}
