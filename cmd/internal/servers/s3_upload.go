package servers

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"flatimg/cmd/internal/cli"
)

// s3Grace is how long the removal of an upload may take.
const s3Grace = 5 * time.Second

// s3Upload is a multipart upload: its parts are an object when it is completed,
// and nothing before.
//
// So there is nothing to read back before that. Each part is sent with its
// SHA-256, by which the server refuses what arrives otherwise; Verify asks what
// it has.
//
// An upload whose id nobody has got to know, since the answer was lost or who
// asked was killed, is left over. It has no parts and takes no space; a bucket's
// lifecycle rule for incomplete uploads removes it.
type s3Upload struct {
	*s3Object
	force   bool
	options Options

	state s3State
	parts []s3Sent // in the order of their numbers
	log   Log      // nil until Send

	// confirms: the server has compared the SHA-256 of a part. signedOnly: it
	// wants all that is sent to be signed.
	confirms, signedOnly atomic.Bool
}

// s3State is what the next run needs to go on.
type s3State struct {
	UploadID string
	// PartSize in bytes.
	PartSize int64
	// NoChecksums: the server takes no SHA-256 of parts.
	NoChecksums bool
}

// s3Sent is a part that has arrived.
type s3Sent struct {
	size   int64
	etag   string
	sha256 string // as the server has confirmed it, in base64
	md5    string // in hex, where the server has no SHA-256
}

var _ = (Checker)((*s3Upload)(nil))
var _ = (Verifier)((*s3Upload)(nil))

func openS3(ctx context.Context, dest string, o Options) (Upload, error) {
	l, err := parseS3(dest)
	if err != nil {
		return nil, err
	}
	if l.isFolder() {
		l = l.within(o.Name)
	}
	object, err := newS3Object(ctx, l, o)
	if err != nil {
		return nil, err
	}
	u := &s3Upload{s3Object: object, force: o.Force, options: o}
	if o.Resume != nil {
		// What can't be read is like nothing: Send begins anew.
		json.Unmarshal(o.Resume, &u.state)
	}
	there := false
	err = u.retrier().meet(ctx, "look at it", func() (err error) {
		_, there, err = u.stat(ctx)
		return err
	})
	if u.force && hasS3Code(err, "AccessDenied") {
		// Keys that may only write can replace what they may not see.
		err = nil
	}
	switch {
	case err != nil:
		u.close()
		return nil, s3Fail(u.String(), "look at it", err)
	case there && !u.force:
		u.close()
		return nil, exists(u.String())
	}
	return u, nil
}

// Check implements [Checker].
func (u *s3Upload) Check(_ context.Context, f File) error {
	if f.Size > s3MaxObject {
		return &cli.Error{
			Err:  fmt.Errorf("%s: an object has %s at most, the file has %s", u, cli.FormatSize(s3MaxObject), cli.FormatSize(f.Size)),
			Hint: "choose a format that leaves out holes, such as qcow2",
			Code: cli.ExitNoSpace,
		}
	}
	return nil
}

// Close implements [Upload].
func (u *s3Upload) Close(keep bool) error {
	defer u.close()
	if keep || u.state.UploadID == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), s3Grace)
	defer cancel()
	var err error
	// Twice, since a part may come after the first one that was under way then
	// (Amazon S3 API Reference, "AbortMultipartUpload").
	for range 2 {
		if err = s3Error(u.core.AbortMultipartUpload(ctx, u.bucket, u.key, u.state.UploadID)); hasS3Code(err, "NoSuchUpload") {
			return nil
		}
	}
	if err == nil {
		return nil
	}
	return &cli.Error{
		Err: fmt.Errorf("%s: the parts of upload %s are left over on the server: %w", u, u.state.UploadID, err),
		Hint: fmt.Sprintf("remove them with: aws s3api abort-multipart-upload --bucket %s --key %s --upload-id %s",
			shellQuote(u.bucket), shellQuote(u.key), shellQuote(u.state.UploadID)),
		Code: cli.ExitServer,
	}
}
