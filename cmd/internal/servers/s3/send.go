package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// Send implements [servers.Upload].
func (u *upload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	if err := u.Check(ctx, servers.File{Size: src.Size()}); err != nil {
		return err
	}
	u.log = log
	there, err := u.resume(ctx, src.Size())
	if err == nil && u.state.UploadID == "" {
		err = u.begin(ctx, src.Size())
	}
	if err != nil {
		return fail(u.String(), "begin the upload", err)
	}
	size := u.state.PartSize
	u.parts = make([]sent, partCount(src.Size(), size))
	numbers := make(chan int)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(numbers)
		for n := range u.parts {
			select {
			case numbers <- n + 1:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	workers := min(u.lanes, len(u.parts))
	for range workers {
		group.Go(func() error {
			memory, err := newMemory(min(size, src.Size()), workers)
			if err != nil {
				return err
			}
			defer memory.free()
			// Of its own: others fail at the same time when the server is away.
			retry := u.retrier()
			for n := range numbers {
				off := int64(n-1) * size
				s, err := newSection(src, off, min(size, src.Size()-off), memory)
				if err == nil {
					u.parts[n-1], err = u.sendPart(ctx, retry, n, s, there[n])
				}
				if err != nil {
					return fail(u.String(), fmt.Sprintf("send part %d", n), err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (u *upload) retrier() *transfer.Retrier {
	r := transfer.NewRetrier(u.options)
	if u.log != nil {
		r.Say = u.log.Say
	}
	return r
}

// begin creates the upload.
func (u *upload) begin(ctx context.Context, size int64) error {
	u.state = uploadState{PartSize: partSize(size)}
	err := u.retrier().Do(ctx, "begin the upload", func() error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		id, err := u.create(ctx)
		if err != nil && !u.state.NoChecksums && hasStatus(err, http.StatusNotImplemented) {
			u.state.NoChecksums = true
			id, err = u.create(ctx)
		}
		u.state.UploadID = id
		return err
	})
	if err == nil {
		u.log.Keep(u.state)
	}
	return err
}

func (u *upload) create(ctx context.Context) (id string, err error) {
	o := minio.PutObjectOptions{ContentType: "application/octet-stream"}
	if !u.state.NoChecksums {
		o.UserMetadata = map[string]string{"X-Amz-Checksum-Algorithm": "SHA256"}
	}
	id, err = u.core.NewMultipartUpload(ctx, u.bucket, u.key, o)
	if err == nil && id == "" {
		err = minio.ErrorResponse{Code: "NoUploadID", Message: "the server has told no id of the upload"}
	}
	return id, toFailure(err)
}

// sendPart sends a part, unless the server has it already.
func (u *upload) sendPart(ctx context.Context, retry *transfer.Retrier, n int, s *section, there sent) (sent, error) {
	sum, err := s.sum(sha256.New())
	if err != nil {
		return sent{}, err
	}
	if there.size == s.size {
		same, err := there.has(s, sum)
		if err != nil {
			return sent{}, err
		}
		if same {
			u.log.Kept(s.dataSize())
			return there, nil
		}
	}
	var sent sent
	err = retry.Do(ctx, fmt.Sprintf("part %d", n), func() error {
		sent, err = u.putPart(ctx, n, s, sum)
		return err
	})
	if err == nil && sent.sha256 == "" {
		err = sent.setMD5(s)
	}
	return sent, err
}

// putPart sends a part once.
//
// Its SHA-256 goes in two places: in that of the signature, which all servers
// compare, and in a header, which those compare that know it. Where the latter
// is known to be, the former is left out, which spares the server to compute it
// twice; the header is signed all the same.
func (u *upload) putPart(ctx context.Context, n int, s *section, sum []byte) (sent, error) {
	unsigned := u.confirms.Load() && !u.signedOnly.Load()
	sent, err := u.putPartSigned(ctx, n, s, sum, !unsigned)
	if unsigned && transfer.Is[*failure](err) && !transfer.MayPass(err) {
		u.signedOnly.Store(true)
		return u.putPartSigned(ctx, n, s, sum, true)
	}
	return sent, err
}

func (u *upload) putPartSigned(ctx context.Context, n int, s *section, sum []byte, signed bool) (sent, error) {
	confirmed := base64.StdEncoding.EncodeToString(sum)
	r := &reader{section: s, data: s.data, sent: u.log.Sent}
	o := minio.PutObjectPartOptions{DisableContentSha256: true}
	if signed {
		o.Sha256Hex = hex.EncodeToString(sum)
	}
	if !u.state.NoChecksums {
		o.CustomHeader = http.Header{"X-Amz-Checksum-Sha256": {confirmed}}
	}
	p, err := u.core.PutObjectPart(ctx, u.bucket, u.key, u.state.UploadID, n, r, s.size, o)
	if err == nil && p.ChecksumSHA256 != "" && p.ChecksumSHA256 != confirmed {
		err = minio.ErrorResponse{Code: "BadDigest", Message: "what arrived differs from what was sent"}
	}
	r.end(err == nil)
	if err == nil && p.ChecksumSHA256 != "" {
		u.confirms.Store(true)
	}
	return sent{size: s.size, etag: p.ETag, sha256: p.ChecksumSHA256}, toFailure(err)
}

// has says whether the part at the server is s, whose SHA-256 is sum.
func (p *sent) has(s *section, sum []byte) (bool, error) {
	if p.sha256 != "" {
		return p.sha256 == base64.StdEncoding.EncodeToString(sum), nil
	}
	err := p.setMD5(s)
	return p.md5 == p.etag, err
}

func (p *sent) setMD5(s *section) error {
	sum, err := s.sum(md5.New())
	p.md5 = hex.EncodeToString(sum)
	return err
}
