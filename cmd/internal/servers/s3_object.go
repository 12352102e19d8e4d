package servers

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"flatimg/cmd/internal/cli"
)

const (
	// s3Patience bounds requests that carry no data.
	s3Patience = time.Minute
	// s3Lanes is how many requests with data go on at a time by default.
	s3Lanes = 4
)

// s3Object is an object at a server that speaks S3. Its methods return errors of
// [s3Error], and are safe for concurrent use.
type s3Object struct {
	s3Location
	core      *minio.Core
	lanes     int // requests with data at a time
	transport s3Transport
}

// newS3Object finds out whom to ask and with which keys; it does not ask yet.
func newS3Object(ctx context.Context, l s3Location, o Options) (*s3Object, error) {
	config, err := loadS3Config(l)
	if err != nil {
		return nil, err
	}
	keys, err := s3Credentials(ctx, config, o)
	if err != nil {
		return nil, err
	}
	quick, err := newTransport(o)
	if err != nil {
		return nil, err
	}
	transport := s3Transport{quick, quick.Clone()}
	transport.patient.ResponseHeaderTimeout = 0
	core, err := minio.NewCore(config.endpoint.Host, &minio.Options{
		Creds:     keys,
		Secure:    config.endpoint.Scheme == "https",
		Region:    config.region,
		Transport: transport,
		// What has failed is tried again by who knows what it was.
		MaxRetries: 1,
	})
	if err != nil {
		return nil, &cli.Error{Err: err, Hint: s3Variables, Code: cli.ExitUsage}
	}
	object := &s3Object{s3Location: l, core: core, lanes: s3Lanes, transport: transport}
	if o.Connections > 0 {
		object.lanes = o.Connections
	}
	return object, nil
}

// s3Transport bounds answers that the client reads as a whole.
type s3Transport struct {
	quick *http.Transport
	// patient is for the completion of an upload, which has a limit of its own.
	patient *http.Transport
}

func (t s3Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	query := req.URL.Query()
	transport := t.quick
	if req.Method == http.MethodPost && query.Has("uploadId") {
		transport = t.patient
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if req.Method != http.MethodGet || query.Has("uploadId") || query.Has("location") {
		resp.Body = limitedBody{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, nil
}

type limitedBody struct {
	io.Reader
	io.Closer
}

// stat asks for the object; there is false where none is.
func (o *s3Object) stat(ctx context.Context) (info minio.ObjectInfo, there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s3Patience)
	defer cancel()
	info, err = o.core.StatObject(ctx, o.bucket, o.key, minio.StatObjectOptions{Checksum: true})
	if err == nil {
		return info, true, nil
	}
	err = s3Error(err)
	if is[*s3Failure](err) && !mayPass(err) {
		err = o.reason(ctx, err)
	}
	if hasS3Code(err, "NoSuchKey") {
		return info, false, nil
	}
	return info, false, err
}

// reason finds out why a HEAD was refused with err: its answer has no body, so
// that a wrong key, a missing bucket and a missing object look alike.
func (o *s3Object) reason(ctx context.Context, err error) error {
	var first minio.GetObjectOptions
	first.SetRange(0, 0)
	body, _, _, getErr := o.core.GetObject(ctx, o.bucket, o.key, first)
	if getErr == nil {
		body.Close()
		return err
	}
	if getErr = s3Error(getErr); is[*s3Failure](getErr) {
		return getErr
	}
	return err
}

func (o *s3Object) close() {
	o.transport.quick.CloseIdleConnections()
	o.transport.patient.CloseIdleConnections()
}
