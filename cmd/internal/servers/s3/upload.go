// Package s3 sends objects to stores with the API of Amazon S3, in parts, and
// fetches them.
package s3

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// grace is how long the removal of an upload may take.
const grace = 5 * time.Second

// upload is a multipart upload: its parts are an object when it is completed,
// and nothing before.
//
// So there is nothing to read back before that. Each part is sent with its
// SHA-256, by which the server refuses what arrives otherwise; Verify asks what
// it has.
//
// An upload whose id nobody has got to know, since the answer was lost or who
// asked was killed, is left over. It has no parts and takes no space; a bucket's
// lifecycle rule for incomplete uploads removes it.
type upload struct {
	*object
	force   bool
	options servers.Options

	state uploadState
	parts []sent      // in the order of their numbers
	log   servers.Log // nil until Send

	// confirms: the server has compared the SHA-256 of a part. signedOnly: it
	// wants all that is sent to be signed.
	confirms, signedOnly atomic.Bool
}

// uploadState is what the next run needs to go on.
type uploadState struct {
	UploadID string
	// PartSize in bytes.
	PartSize int64
	// NoChecksums: the server takes no SHA-256 of parts.
	NoChecksums bool
}

// sent is a part that has arrived.
type sent struct {
	size   int64
	etag   string
	sha256 string // as the server has confirmed it, in base64
	md5    string // in hex, where the server has no SHA-256
}

var _ = (servers.Checker)((*upload)(nil))
var _ = (servers.Verifier)((*upload)(nil))

// Open opens the object that a URL names as a destination.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	l, err := parseURL(dest)
	if err != nil {
		return nil, err
	}
	if l.isFolder() {
		l = l.within(o.Name)
	}
	object, err := newObject(ctx, l, o)
	if err != nil {
		return nil, err
	}
	u := &upload{object: object, force: o.Force, options: o}
	if o.Resume != nil {
		// What can't be read is like nothing: Send begins anew.
		json.Unmarshal(o.Resume, &u.state)
	}
	there := false
	err = u.retrier().Meet(ctx, "look at it", func() (err error) {
		_, there, err = u.stat(ctx)
		return err
	})
	if u.force && hasCode(err, "AccessDenied") {
		// Keys that may only write can replace what they may not see.
		err = nil
	}
	switch {
	case err != nil:
		u.close()
		return nil, fail(u.String(), "look at it", err)
	case there && !u.force:
		u.close()
		return nil, transfer.Exists(u.String())
	}
	return u, nil
}

// Check implements [servers.Checker].
func (u *upload) Check(_ context.Context, f servers.File) error {
	if f.Size > maxObject {
		return &cli.Error{
			Err:  fmt.Errorf("%s: an object has %s at most, the file has %s", u, cli.FormatSize(maxObject), cli.FormatSize(f.Size)),
			Hint: "choose a format that leaves out holes, such as qcow2",
			Code: cli.ExitNoSpace,
		}
	}
	return nil
}

// Close implements [servers.Upload].
func (u *upload) Close(keep bool) error {
	defer u.close()
	if keep || u.state.UploadID == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var err error
	// Twice, since a part may come after the first one that was under way then
	// (Amazon S3 API Reference, "AbortMultipartUpload").
	for range 2 {
		if err = toFailure(u.core.AbortMultipartUpload(ctx, u.bucket, u.key, u.state.UploadID)); hasCode(err, "NoSuchUpload") {
			return nil
		}
	}
	if err == nil {
		return nil
	}
	return &cli.Error{
		Err: fmt.Errorf("%s: the parts of upload %s are left over on the server: %w", u, u.state.UploadID, err),
		Hint: fmt.Sprintf("remove them with: aws s3api abort-multipart-upload --bucket %s --key %s --upload-id %s",
			transfer.ShellQuote(u.bucket), transfer.ShellQuote(u.key), transfer.ShellQuote(u.state.UploadID)),
		Code: cli.ExitServer,
	}
}
