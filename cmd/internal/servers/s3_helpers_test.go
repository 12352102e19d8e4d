package servers

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"flatimg/integration/rig"
)

// s3Env lets the environment name a server and its keys, and nothing else.
func s3Env(t *testing.T, endpoint, id, secret string) {
	t.Helper()
	for name, value := range map[string]string{
		"HOME": t.TempDir(), "AWS_PROFILE": "", "AWS_CONFIG_FILE": "", "AWS_SHARED_CREDENTIALS_FILE": "",
		"AWS_ENDPOINT_URL": endpoint, "AWS_ENDPOINT_URL_S3": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "",
		"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": "",
		"AWS_WEB_IDENTITY_TOKEN_FILE": "", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "",
	} {
		t.Setenv(name, value)
	}
}

// s3Real starts a server, with a proxy in front of it to which the environment
// leads.
func s3Real(t *testing.T) (*rig.S3Server, *rig.Cutter) {
	t.Helper()
	server := rig.Versitygw(t)
	cutter := rig.NewCutter(t, server.Address)
	s3Env(t, "http://"+cutter.Address, server.AccessKey, server.SecretKey)
	return server, cutter
}

// randomSource returns a source with runs of data at random places.
func randomSource(size int64) *fakeSource {
	r := rand.New(rand.NewPCG(uint64(size), 1))
	var runs []chunk
	for off := r.Int64N(1 << 20); off < size; {
		length := min(1+r.Int64N(3<<20), size-off)
		runs = append(runs, chunk{off, length})
		off += length + r.Int64N(4<<20)
	}
	return newSource(size, runs...)
}

func sourceBytes(t *testing.T, src *fakeSource) []byte {
	t.Helper()
	b := make([]byte, src.Size())
	if n, _ := src.ReadAt(b, 0); n != len(b) {
		t.Fatal("the source is cut")
	}
	return b
}

// s3Export uploads src as a run of the program does.
func s3Export(t *testing.T, dest string, src Source, log *testLog, o Options) error {
	t.Helper()
	u, err := Open(t.Context(), dest, o)
	if err != nil {
		return err
	}
	if err := u.Send(t.Context(), src, log); err != nil {
		return errors.Join(err, u.Close(true))
	}
	if by, err := u.(Verifier).Verify(t.Context(), nil); err != nil || by == "" {
		return errors.Join(err, u.Close(false))
	}
	return errors.Join(u.Publish(t.Context()), u.Close(false))
}

func mustS3Export(t *testing.T, dest string, src Source, o Options) {
	t.Helper()
	log := &testLog{}
	if err := s3Export(t, dest, src, log, o); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(log.said, "\n"))
	}
	if want, _ := dataSize(src); log.sent.Load()+log.kept.Load() != want {
		t.Errorf("%d bytes sent and %d kept, of %d of data", log.sent.Load(), log.kept.Load(), want)
	}
}

// checkNoUploads checks that the bucket has no upload that is not completed.
func checkNoUploads(t *testing.T, bucket string) {
	t.Helper()
	object, err := newS3Object(t.Context(), s3Location{bucket: bucket, key: "x"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer object.close()
	list, err := object.core.ListMultipartUploads(t.Context(), bucket, "", "", "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range list.Uploads {
		t.Errorf("upload %s of %s is left over", u.UploadID, u.Key)
	}
}

// stoppingLog calls stop when so many bytes were sent.
type stoppingLog struct {
	testLog
	after int64
	stop  func()
	once  sync.Once
}

func (l *stoppingLog) Sent(n int64) {
	l.testLog.Sent(n)
	if l.sent.Load() > l.after {
		l.once.Do(l.stop)
	}
}
