package s3

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/minio/minio-go/v7"

	"flatimg/cmd/internal/servers/transfer"
)

// resume asks which parts an earlier run has sent, by their numbers. Where its
// upload is of no use any more, the state is that of nothing.
func (u *upload) resume(ctx context.Context, size int64) (map[int]sent, error) {
	s := u.state
	if s.UploadID == "" {
		if u.options.Resume != nil {
			u.log.Say("what an earlier run has noted can't be read: beginning anew")
		}
		return nil, nil
	}
	if s.PartSize < minPart || s.PartSize > maxPart || partCount(size, s.PartSize) > maxParts {
		u.log.Say("the parts of the earlier upload do not fit: beginning anew")
		return nil, u.abandon(ctx)
	}
	parts, err := u.list(ctx)
	if hasCode(err, "NoSuchUpload") {
		u.log.Say("the server does not have the earlier upload any more: beginning anew")
		u.state = uploadState{}
		return nil, nil
	}
	if hasCode(err, "AccessDenied", "NotImplemented") {
		u.log.Say("the server does not list the parts of the earlier upload: beginning anew")
		return nil, u.abandon(ctx)
	}
	return parts, err
}

// abandon removes the upload that can't be gone on with.
func (u *upload) abandon(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	err := toFailure(u.core.AbortMultipartUpload(ctx, u.bucket, u.key, u.state.UploadID))
	if hasCode(err, "NoSuchUpload") {
		err = nil
	}
	if err == nil {
		u.state = uploadState{}
	}
	return err
}

// list returns the parts that the server has, by their numbers.
func (u *upload) list(ctx context.Context) (map[int]sent, error) {
	const page = 1000
	parts := map[int]sent{}
	retry := u.retrier()
	for marker := 0; ; {
		var result minio.ListObjectPartsResult
		err := retry.Do(ctx, "list the parts", func() error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			var err error
			result, err = u.core.ListObjectParts(ctx, u.bucket, u.key, u.state.UploadID, marker, page)
			return toFailure(err)
		})
		if err != nil {
			return nil, err
		}
		last := marker
		for _, p := range result.ObjectParts {
			if p.PartNumber < 1 || p.PartNumber > maxParts {
				return nil, fmt.Errorf("the server lists a part %d", p.PartNumber)
			}
			parts[p.PartNumber] = sent{size: p.Size, etag: trimQuotes(p.ETag), sha256: p.ChecksumSHA256}
			last = max(last, p.PartNumber)
		}
		if !result.IsTruncated {
			return parts, nil
		}
		if last == marker {
			return nil, errors.New("the server's list of parts does not go on")
		}
		marker = last
	}
}

// trimQuotes returns an ETag without the quotation marks of its header.
func trimQuotes(etag string) string {
	if n := len(etag); n >= 2 && etag[0] == '"' && etag[n-1] == '"' {
		return etag[1 : n-1]
	}
	return etag
}

// Verify implements [servers.Verifier]: the parts that the server lists are those
// that it has confirmed one by one. It does not know the SHA-256 of all.
func (u *upload) Verify(ctx context.Context, _ []byte) (string, error) {
	const bySHA256 = "SHA-256 of each part, by the server"
	listed, err := u.list(ctx)
	if _, known := compositeSHA256(u.parts); known && hasCode(err, "AccessDenied", "NotImplemented") {
		return bySHA256, nil // as it has confirmed while they came
	}
	if err != nil {
		return "", fail(u.String(), "list the parts", err)
	}
	if len(listed) != len(u.parts) {
		return "", fail(u.String(), "list the parts", fmt.Errorf("the server has %d, of %d that were sent", len(listed), len(u.parts)))
	}
	var bySHA, byMD5 int
	different := -1
	for i, sent := range u.parts {
		has := listed[i+1]
		switch {
		case has.size != sent.size || has.etag != sent.etag || has.sha256 != "" && sent.sha256 != "" && has.sha256 != sent.sha256:
			return "", fail(u.String(), "list the parts", fmt.Errorf("part %d is another one than was sent", i+1))
		case sent.sha256 != "":
			bySHA++
		case sent.md5 == sent.etag:
			byMD5++
		default:
			different = i
		}
	}
	switch {
	case bySHA == len(u.parts):
		return bySHA256, nil
	case different < 0:
		return "MD5 of each part, by the server", nil
	case byMD5 == 0:
		// Encrypted parts have others, and some servers' are no checksums.
		return "", transfer.NoVerification(u.String(), "the server tells no checksums of parts")
	}
	got, ok := md5ETag(u.parts[different].etag)
	want, _ := hex.DecodeString(u.parts[different].md5)
	if !ok {
		return "", transfer.NoVerification(u.String(), fmt.Sprintf("the server tells no checksum of part %d", different+1))
	}
	return "", transfer.Differs(u.String(), got, fmt.Sprintf("MD5 of part %d, by the server", different+1), want)
}
