package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// Publish implements [servers.Upload]. Servers that know no conditions may replace
// what somebody else has put there in the moment after it was looked for.
func (u *upload) Publish(ctx context.Context) error {
	lost := false // an answer that may have been a success
	conditional := !u.force
	err := u.retrier().Do(ctx, "complete the upload", func() error {
		if lost || !u.force {
			info, there, err := u.stat(ctx)
			switch {
			case lost && there && u.isOurs(info):
				return nil
			case there && !u.force:
				return transfer.Exists(u.String())
			case err != nil && !u.force:
				return err
			}
		}
		err := u.complete(ctx, conditional)
		if hasStatus(err, http.StatusGatewayTimeout) && u.appears(ctx) {
			return nil
		}
		if conditional && hasStatus(err, http.StatusNotImplemented) {
			conditional = false
			err = u.complete(ctx, conditional)
		}
		if hasStatus(err, http.StatusPreconditionFailed) || hasCode(err, "ConditionalRequestConflict") ||
			lost && hasCode(err, "NoSuchUpload") {
			// What came late may have been the first try after all.
			info, there, statErr := u.stat(ctx)
			switch {
			case lost && there && u.isOurs(info):
				return nil
			case there && statErr == nil && !u.force:
				return transfer.Exists(u.String())
			}
		}
		if lost && err == nil {
			err = u.confirm(ctx)
		}
		lost = lost || transfer.MayPass(err)
		return err
	})
	if err != nil {
		if lost {
			err = fmt.Errorf("%w; it may be there all the same", err)
		}
		return fail(u.String(), "complete the upload", err)
	}
	u.state.UploadID = ""
	return nil
}

// complete asks the server to join the parts. Some copy all of them.
func (u *upload) complete(ctx context.Context, conditional bool) error {
	ctx, cancel := context.WithTimeout(ctx, web.SizeLimit(u.size()))
	defer cancel()
	var o minio.PutObjectOptions
	if conditional {
		o.SetMatchETagExcept("*")
	}
	_, err := u.core.CompleteMultipartUpload(ctx, u.bucket, u.key, u.state.UploadID, u.completed(), o)
	return toFailure(err)
}

// completed returns the parts as the server wants them told.
func (u *upload) completed() []minio.CompletePart {
	parts := make([]minio.CompletePart, len(u.parts))
	for i, p := range u.parts {
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.etag, ChecksumSHA256: p.sha256}
	}
	return parts
}

// size of what was sent, in bytes.
func (u *upload) size() (sum int64) {
	for _, p := range u.parts {
		sum += p.size
	}
	return sum
}

// confirm looks whether the object is there. A server that is still joining the
// parts, as it was asked to earlier, may say that all went well (versitygw).
func (u *upload) confirm(ctx context.Context) error {
	if u.appears(ctx) {
		return nil
	}
	info, there, err := u.stat(ctx)
	if err == nil && (!there || info.Size != u.size()) {
		err = transfer.Passing(errors.New("the server says that the upload is complete, but it is not there"))
	}
	return err
}

// appears waits for the object of an upload whose end was not waited for, and
// says whether it is what was sent.
func (u *upload) appears(ctx context.Context) (ours bool) {
	transfer.Await(ctx, web.SizeLimit(u.size()), func() (bool, error) {
		info, there, err := u.stat(ctx)
		ours = there && u.isOurs(info)
		// Without force nothing was there before.
		return ours || there && !u.force, err
	})
	return ours
}

// isOurs says whether an object is what was sent.
func (u *upload) isOurs(info minio.ObjectInfo) bool {
	etag, ok := compositeETag(u.parts)
	if sum, known := compositeSHA256(u.parts); known && info.ChecksumSHA256 == sum {
		ok, etag = true, info.ETag // encrypted objects have others
	}
	return ok && info.Size == u.size() && info.ETag == etag
}

// compositeSHA256 is [compositeETag] for SHA-256 and base64.
func compositeSHA256(parts []sent) (string, bool) {
	h := sha256.New()
	for _, p := range parts {
		sum, err := base64.StdEncoding.DecodeString(p.sha256)
		if err != nil || len(sum) != sha256.Size {
			return "", false
		}
		h.Write(sum)
	}
	return fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(parts)), true
}

// compositeETag returns the ETag of an object of these parts: the MD5 of theirs,
// and how many (Amazon S3 User Guide, "Checking object integrity"). It is not
// known where those of the parts are no MD5.
func compositeETag(parts []sent) (string, bool) {
	h := md5.New()
	for _, p := range parts {
		sum, ok := md5ETag(p.etag)
		if !ok {
			return "", false
		}
		h.Write(sum)
	}
	return fmt.Sprintf("%x-%d", h.Sum(nil), len(parts)), true
}

// md5ETag returns the MD5 that an ETag may be.
func md5ETag(etag string) ([]byte, bool) {
	sum, err := hex.DecodeString(etag)
	return sum, err == nil && len(sum) == md5.Size
}
