package s3

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/integration/rig"
)

// env lets the environment name a server and its keys, and nothing else.
func env(t *testing.T, endpoint, id, secret string) {
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

// realServer starts a server, with a proxy in front of it to which the environment
// leads.
func realServer(t *testing.T) (*rig.S3Server, *rig.Cutter) {
	t.Helper()
	server := rig.Versitygw(t)
	cutter := rig.NewCutter(t, server.Address)
	env(t, "http://"+cutter.Address, server.AccessKey, server.SecretKey)
	return server, cutter
}

// randomSource returns a source with runs of data at random places.
func randomSource(size int64) *servertest.Source {
	r := rand.New(rand.NewPCG(uint64(size), 1))
	var runs []servertest.Run
	for off := r.Int64N(1 << 20); off < size; {
		length := min(1+r.Int64N(3<<20), size-off)
		runs = append(runs, servertest.Data(off, length))
		off += length + r.Int64N(4<<20)
	}
	return servertest.NewSource(size, runs...)
}

// export uploads src as a run of the program does.
func export(t *testing.T, dest string, src servers.Source, log *servertest.Log, o servers.Options) error {
	t.Helper()
	u, err := Open(t.Context(), dest, o)
	if err != nil {
		return err
	}
	if err := u.Send(t.Context(), src, log); err != nil {
		return errors.Join(err, u.Close(true))
	}
	if by, err := u.(servers.Verifier).Verify(t.Context(), nil); err != nil || by == "" {
		return errors.Join(err, u.Close(false))
	}
	return errors.Join(u.Publish(t.Context()), u.Close(false))
}

func mustExport(t *testing.T, dest string, src servers.Source, o servers.Options) {
	t.Helper()
	log := &servertest.Log{}
	if err := export(t, dest, src, log, o); err != nil {
		t.Fatalf("%v\n%s", err, strings.Join(log.Said, "\n"))
	}
	if want, _ := transfer.DataSize(src); log.SentBytes.Load()+log.KeptBytes.Load() != want {
		t.Errorf("%d bytes sent and %d kept, of %d of data", log.SentBytes.Load(), log.KeptBytes.Load(), want)
	}
}

// checkNoUploads checks that the bucket has no upload that is not completed.
func checkNoUploads(t *testing.T, bucket string) {
	t.Helper()
	object, err := newObject(t.Context(), location{bucket: bucket, key: "x"}, servers.Options{})
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
	servertest.Log
	after int64
	stop  func()
	once  sync.Once
}

func (l *stoppingLog) Sent(n int64) {
	l.Log.Sent(n)
	if l.SentBytes.Load() > l.after {
		l.once.Do(l.stop)
	}
}
