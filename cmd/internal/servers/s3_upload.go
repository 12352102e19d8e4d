package servers

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

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
// What is killed between the creation of an upload and the note of its id leaves
// one without parts, which takes no space; a bucket's lifecycle rule for
// incomplete uploads removes it.
type s3Upload struct {
	*s3Object
	force   bool
	workers int
	options Options

	state s3State
	parts []s3Sent // in the order of their numbers
	log   Log      // nil until Send
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
	u := &s3Upload{s3Object: object, force: o.Force, workers: s3Lanes, options: o}
	if o.Connections > 0 {
		u.workers = o.Connections
	}
	if o.Resume != nil {
		// What can't be read is like nothing: Send begins anew.
		json.Unmarshal(o.Resume, &u.state)
	}
	_, there, err := u.stat(ctx)
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

// Send implements [Upload].
func (u *s3Upload) Send(ctx context.Context, src Source, log Log) error {
	if err := u.Check(ctx, File{Size: src.Size()}); err != nil {
		return err
	}
	u.log = log
	there, err := u.resume(ctx, src.Size())
	if err == nil && u.state.UploadID == "" {
		err = u.begin(ctx, src.Size())
	}
	if err != nil {
		return s3Fail(u.String(), "begin the upload", err)
	}
	size := u.state.PartSize
	u.parts = make([]s3Sent, s3PartCount(src.Size(), size))
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
	workers := min(u.workers, len(u.parts))
	for range workers {
		group.Go(func() error {
			var buf []byte
			if int64(workers)*size <= s3Memory {
				buf = make([]byte, min(size, src.Size()))
			}
			// Of its own: others fail at the same time when the server is away.
			retry := u.retrier()
			for n := range numbers {
				off := int64(n-1) * size
				s, err := newS3Section(src, off, min(size, src.Size()-off), buf)
				if err == nil {
					u.parts[n-1], err = u.sendPart(ctx, retry, n, s, there[n])
				}
				if err != nil {
					return s3Fail(u.String(), fmt.Sprintf("send part %d", n), err)
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (u *s3Upload) retrier() *retrier {
	r := newRetrier(u.options)
	if u.log != nil {
		r.say = u.log.Say
	}
	return r
}

// begin creates the upload.
func (u *s3Upload) begin(ctx context.Context, size int64) error {
	u.state = s3State{PartSize: s3PartSize(size)}
	err := u.retrier().do(ctx, "begin the upload", func() error {
		ctx, cancel := context.WithTimeout(ctx, s3Patience)
		defer cancel()
		id, err := u.create(ctx)
		if err != nil && !u.state.NoChecksums && hasS3Status(err, http.StatusNotImplemented) {
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

func (u *s3Upload) create(ctx context.Context) (id string, err error) {
	o := minio.PutObjectOptions{ContentType: "application/octet-stream"}
	if !u.state.NoChecksums {
		o.UserMetadata = map[string]string{"X-Amz-Checksum-Algorithm": "SHA256"}
	}
	id, err = u.core.NewMultipartUpload(ctx, u.bucket, u.key, o)
	if err == nil && id == "" {
		err = minio.ErrorResponse{Code: "NoUploadID", Message: "the server has told no id of the upload"}
	}
	return id, s3Error(err)
}

// sendPart sends a part, unless the server has it already.
func (u *s3Upload) sendPart(ctx context.Context, retry *retrier, n int, s *s3Section, there s3Sent) (s3Sent, error) {
	sum, err := s.sum(sha256.New())
	if err != nil {
		return s3Sent{}, err
	}
	if there.size == s.size {
		same, err := there.has(s, sum)
		if err != nil {
			return s3Sent{}, err
		}
		if same {
			u.log.Kept(s.dataSize())
			return there, nil
		}
	}
	var sent s3Sent
	err = retry.do(ctx, fmt.Sprintf("part %d", n), func() error {
		sent, err = u.putPart(ctx, n, s, sum)
		return err
	})
	if err == nil && sent.sha256 == "" {
		err = sent.setMD5(s)
	}
	return sent, err
}

// putPart sends a part once.
func (u *s3Upload) putPart(ctx context.Context, n int, s *s3Section, sum []byte) (s3Sent, error) {
	confirmed := base64.StdEncoding.EncodeToString(sum)
	r := &s3Reader{section: s, data: s.data, sent: u.log.Sent}
	// The signature covers the checksum, so that all servers compare it.
	o := minio.PutObjectPartOptions{Sha256Hex: hex.EncodeToString(sum), DisableContentSha256: true}
	if !u.state.NoChecksums {
		o.CustomHeader = http.Header{"X-Amz-Checksum-Sha256": {confirmed}}
	}
	p, err := u.core.PutObjectPart(ctx, u.bucket, u.key, u.state.UploadID, n, r, s.size, o)
	if err == nil && p.ChecksumSHA256 != "" && p.ChecksumSHA256 != confirmed {
		err = minio.ErrorResponse{Code: "BadDigest", Message: "what arrived differs from what was sent"}
	}
	r.end(err == nil)
	return s3Sent{size: s.size, etag: p.ETag, sha256: p.ChecksumSHA256}, s3Error(err)
}

// has says whether the part at the server is s, whose SHA-256 is sum.
func (p *s3Sent) has(s *s3Section, sum []byte) (bool, error) {
	if p.sha256 != "" {
		return p.sha256 == base64.StdEncoding.EncodeToString(sum), nil
	}
	err := p.setMD5(s)
	return p.md5 == p.etag, err
}

func (p *s3Sent) setMD5(s *s3Section) error {
	sum, err := s.sum(md5.New())
	p.md5 = hex.EncodeToString(sum)
	return err
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

// completed returns the parts as the server wants them told.
func (u *s3Upload) completed() []minio.CompletePart {
	parts := make([]minio.CompletePart, len(u.parts))
	for i, p := range u.parts {
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.etag, ChecksumSHA256: p.sha256}
	}
	return slices.Clip(parts)
}
