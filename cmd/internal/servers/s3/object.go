package s3

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// patience bounds requests that carry no data.
const patience = time.Minute

// object is an object at a server that speaks S3. Its methods return errors of
// [toFailure], and are safe for concurrent use.
type object struct {
	location
	core      *minio.Core
	lanes     int // requests with data at a time
	transport transport
}

// newObject finds out whom to ask and with which keys; it does not ask yet.
func newObject(ctx context.Context, l location, o servers.Options) (*object, error) {
	config, err := loadConfig(l)
	if err != nil {
		return nil, err
	}
	keys, err := loadCredentials(ctx, config, o)
	if err != nil {
		return nil, err
	}
	quick, err := web.NewTransport(o)
	if err != nil {
		return nil, err
	}
	transport := transport{quick, quick.Clone()}
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
		return nil, &cli.Error{Err: err, Hint: variables, Code: cli.ExitUsage}
	}
	lanes := cmp.Or(max(o.Connections, 0), web.DefaultLanes)
	return &object{location: l, core: core, lanes: lanes, transport: transport}, nil
}

// transport bounds answers that the client reads as a whole.
type transport struct {
	quick *http.Transport
	// patient is for the completion of an upload, which has a limit of its own.
	patient *http.Transport
}

func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
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
		resp.Body = limitedBody{io.LimitReader(resp.Body, web.MaxAnswer), resp.Body}
	}
	return resp, nil
}

type limitedBody struct {
	io.Reader
	io.Closer
}

// stat asks for the object; there is false where none is.
func (o *object) stat(ctx context.Context) (info minio.ObjectInfo, there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	info, err = o.core.StatObject(ctx, o.bucket, o.key, minio.StatObjectOptions{Checksum: true})
	if err == nil {
		return info, true, nil
	}
	err = toFailure(err)
	if transfer.Is[*failure](err) && !transfer.MayPass(err) {
		err = o.reason(ctx, err)
	}
	if hasCode(err, "NoSuchKey") {
		return info, false, nil
	}
	return info, false, err
}

// reason finds out why a HEAD was refused with err: its answer has no body, so
// that a wrong key, a missing bucket and a missing object look alike.
func (o *object) reason(ctx context.Context, err error) error {
	var first minio.GetObjectOptions
	first.SetRange(0, 0)
	body, _, _, getErr := o.core.GetObject(ctx, o.bucket, o.key, first)
	if getErr == nil {
		body.Close()
		return err
	}
	if getErr = toFailure(getErr); transfer.Is[*failure](getErr) {
		return getErr
	}
	return err
}

func (o *object) close() {
	o.transport.quick.CloseIdleConnections()
	o.transport.patient.CloseIdleConnections()
}
