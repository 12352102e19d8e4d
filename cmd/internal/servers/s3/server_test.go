package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/integration/rig"
)

func TestS3RoundTrip(t *testing.T) {
	server, _ := realServer(t)
	for _, size := range []int64{0, 1, 5000, usualPart - 1, usualPart, usualPart + 1, 2*usualPart + 12345} {
		src := randomSource(size)
		dest := fmt.Sprintf("s3://%s/folder with spaces/%d+&.raw", server.Bucket, size)
		mustExport(t, dest, src, servers.Options{})
		want := servertest.Content(t, src)
		if got, err := os.ReadFile(filepath.Join(server.BucketDir, "folder with spaces", fmt.Sprintf("%d+&.raw", size))); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: the object differs: %v", size, err)
		}
		d, err := OpenSource(t.Context(), dest, servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Size() != size || d.Version() == "" || d.String() != dest {
			t.Errorf("%s: size %d, version %q", d, d.Size(), d.Version())
		}
		var got bytes.Buffer
		for _, r := range []transfer.Chunk{{Off: 0, Length: size / 3}, {Off: size / 3, Length: size/2 - size/3}, {Off: size / 2, Length: -1}} {
			if err := d.Read(t.Context(), &got, r.Off, r.Length); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: what was read differs", d)
		}
		if c, err := d.(servers.Summer).Checksum(t.Context()); size > 0 && (err != nil || !servertest.IsOf(c, want) || servertest.IsOf(c, append(want, 0))) {
			t.Errorf("%s: checksum %+v, %v", d, c, err)
		}
		d.Close()
	}
	checkNoUploads(t, server.Bucket)
}

func TestS3Folder(t *testing.T) {
	server, _ := realServer(t)
	for dest, want := range map[string]string{"": "disk.raw", "/": "disk.raw", "/a/b/": "a/b/disk.raw"} {
		dest = "s3://" + server.Bucket + dest
		mustExport(t, dest, servertest.NewSource(100, servertest.Data(0, 100)), servers.Options{Name: "disk.raw", Force: true})
		if _, err := os.Stat(filepath.Join(server.BucketDir, want)); err != nil {
			t.Errorf("%s: %v", dest, err)
		}
	}
}

func TestS3CutConnections(t *testing.T) {
	server, cutter := realServer(t)
	src := randomSource(3 * usualPart)
	cutter.CutAfter(1<<10, 1<<20, 7<<20, 9<<20)
	mustExport(t, "s3://"+server.Bucket+"/cut.raw", src, servers.Options{})
	if cutter.Cuts() < 4 {
		t.Errorf("cut %d times", cutter.Cuts())
	}
	got, err := os.ReadFile(filepath.Join(server.BucketDir, "cut.raw"))
	if err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
		t.Errorf("the object differs: %v", err)
	}
}

// TestS3CutAnswers loses each answer in turn, in the middle and as a whole.
func TestS3CutAnswers(t *testing.T) {
	server, cutter := realServer(t)
	src := servertest.NewSource(5000, servertest.Data(0, 5000))
	for cut := int64(0); ; cut += 290 {
		name := fmt.Sprintf("cut%d.raw", cut)
		u, err := Open(t.Context(), "s3://"+server.Bucket+"/"+name, servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		before := cutter.Cuts()
		cutter.CutRepliesAfter(cut)
		err = u.Send(t.Context(), src, &servertest.Log{})
		if err == nil {
			_, err = u.(servers.Verifier).Verify(t.Context(), nil)
		}
		if err == nil {
			err = u.Publish(t.Context())
		}
		if err := errors.Join(err, u.Close(false)); err != nil {
			t.Errorf("cut after %d bytes: %v", cut, err)
		}
		got, err := os.ReadFile(filepath.Join(server.BucketDir, name))
		if err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
			t.Errorf("cut after %d bytes: the object differs: %v", cut, err)
		}
		cutter.CutRepliesAfter()
		if cutter.Cuts() == before {
			return // all answers together are shorter
		}
	}
}

func TestS3Resume(t *testing.T) {
	server, cutter := realServer(t)
	src := randomSource(4 * usualPart)
	dest := "s3://" + server.Bucket + "/resumed.raw"
	var o servers.Options
	var kept int64
	for _, cut := range []int64{1 << 20, 20 << 20, 40 << 20} {
		cutter.CutAfter(cut)
		log := &servertest.Log{}
		o.Retries, o.Connections = -1, 1
		if err := export(t, dest, src, log, o); err == nil {
			t.Fatalf("cut after %d bytes: no error", cut)
		} else if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitServer {
			t.Errorf("%v, want exit code %d", err, cli.ExitServer)
		}
		if log.State != nil {
			o.Resume = log.State
		}
		kept = log.KeptBytes.Load()
	}
	if kept == 0 {
		t.Error("no part was kept")
	}
	mustExport(t, dest, src, o)
	got, err := os.ReadFile(filepath.Join(server.BucketDir, "resumed.raw"))
	if err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
		t.Errorf("the object differs: %v", err)
	}
	checkNoUploads(t, server.Bucket)

	// An upload that is gone.
	log := &servertest.Log{}
	o.Force = true
	if err := export(t, dest, src, log, o); err != nil {
		t.Fatal(err)
	}
	if said := strings.Join(log.Said, "\n"); !strings.Contains(said, "anew") {
		t.Errorf("said %q", said)
	}
}

func TestS3KilledServer(t *testing.T) {
	server, cutter := realServer(t)
	src := randomSource(3 * usualPart)
	dest := "s3://" + server.Bucket + "/killed.raw"
	u, err := Open(t.Context(), dest, servers.Options{Retries: 1, Connections: 1})
	if err != nil {
		t.Fatal(err)
	}
	log := &stoppingLog{after: 17 << 20, stop: server.Stop}
	if err := u.Send(t.Context(), src, log); err == nil {
		t.Fatal("no error")
	}
	if err := u.Close(false); err == nil || !strings.Contains(err.Error(), "left over") {
		t.Errorf("closing without a server: %v", err)
	}
	server.Restart(t)
	cutter.Cut()
	mustExport(t, dest, src, servers.Options{Resume: log.State})
	checkNoUploads(t, server.Bucket)
}

func TestS3Remove(t *testing.T) {
	server, _ := realServer(t)
	src := randomSource(2 * usualPart)
	dest := "s3://" + server.Bucket + "/removed.raw"
	for name, remove := range map[string]func(u servers.Upload, log *servertest.Log) error{
		"at once": func(u servers.Upload, _ *servertest.Log) error { return u.Close(false) },
		"by a later run": func(u servers.Upload, log *servertest.Log) error {
			if err := u.Close(true); err != nil {
				return err
			}
			later, err := Open(t.Context(), dest, servers.Options{Force: true, Resume: log.State})
			if err != nil {
				return err
			}
			return later.Close(false)
		},
	} {
		log := &servertest.Log{}
		u, err := Open(t.Context(), dest, servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Send(t.Context(), src, log); err != nil {
			t.Fatal(err)
		}
		if err := remove(u, log); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		checkNoUploads(t, server.Bucket)
	}
	if names, err := os.ReadDir(server.BucketDir); err != nil || len(names) > 1 {
		t.Errorf("left over: %v, %v", names, err)
	}
}

func TestS3Exists(t *testing.T) {
	server, _ := realServer(t)
	dest := "s3://" + server.Bucket + "/one.raw"
	// All of them are open before the first is published.
	const rivals = 4
	var uploads []servers.Upload
	for i := range rivals {
		u, err := Open(t.Context(), dest, servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Send(t.Context(), servertest.NewSource(int64(1000+i), servertest.Data(0, 1000)), &servertest.Log{}); err != nil {
			t.Fatal(err)
		}
		uploads = append(uploads, u)
	}
	results := make(chan error, rivals)
	for _, u := range uploads {
		go func() { results <- errors.Join(u.Publish(t.Context()), u.Close(false)) }()
	}
	won := 0
	for range rivals {
		err := <-results
		if e, ok := errors.AsType[*cli.Error](err); err != nil && (!ok || e.Code != cli.ExitExists) {
			t.Errorf("%v, want exit code %d", err, cli.ExitExists)
		}
		if err == nil {
			won++
		}
	}
	if won != 1 {
		t.Errorf("%d have won", won)
	}
	checkNoUploads(t, server.Bucket)

	_, err := Open(t.Context(), dest, servers.Options{})
	if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitExists {
		t.Errorf("%v, want exit code %d", err, cli.ExitExists)
	}
	mustExport(t, dest, servertest.NewSource(50, servertest.Data(0, 50)), servers.Options{Force: true})
}

func TestS3Refused(t *testing.T) {
	server, _ := realServer(t)
	for _, c := range []struct{ name, id, secret, bucket, hint string }{
		{"unknown key", "nobody", server.SecretKey, server.Bucket, "AWS_ACCESS_KEY_ID"},
		{"wrong secret", server.AccessKey, "wrong", server.Bucket, "AWS_SECRET_ACCESS_KEY"},
		{"no bucket", server.AccessKey, server.SecretKey, "nothing", "make the bucket"},
	} {
		t.Setenv("AWS_ACCESS_KEY_ID", c.id)
		t.Setenv("AWS_SECRET_ACCESS_KEY", c.secret)
		dest := "s3://" + c.bucket + "/a.raw"
		_, err := Open(t.Context(), dest, servers.Options{})
		_, sourceErr := OpenSource(t.Context(), dest, servers.Options{})
		for _, err := range []error{err, sourceErr} {
			e, ok := errors.AsType[*cli.Error](err)
			if !ok || e.Code != cli.ExitServer || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("%s: %v (%s), want a hint with %q", c.name, err, cli.Hint(err), c.hint)
			} else if strings.Contains(e.Error()+e.Hint, c.secret) {
				t.Errorf("%s: the error tells the secret: %v", c.name, err)
			}
		}
	}
}

func TestS3SourceChanges(t *testing.T) {
	server, _ := realServer(t)
	dest := "s3://" + server.Bucket + "/changing.raw"
	mustExport(t, dest, servertest.NewSource(1000, servertest.Data(0, 1000)), servers.Options{})
	d, err := OpenSource(t.Context(), dest, servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	mustExport(t, dest, servertest.NewSource(1000, servertest.Data(0, 999)), servers.Options{Force: true})
	if err := d.Read(t.Context(), new(bytes.Buffer), 0, 10); err == nil || !strings.Contains(err.Error(), "meanwhile") {
		t.Errorf("%v, want that it was changed", err)
	}
	if err := os.Remove(filepath.Join(server.BucketDir, "changing.raw")); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSource(t.Context(), dest, servers.Options{}); err == nil || !strings.Contains(err.Error(), "NoSuchKey") {
		t.Errorf("%v, want that it is missing", err)
	}
}

func TestS3LostAnswer(t *testing.T) {
	server := rig.Versitygw(t)
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var lost atomic.Int32
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // which is signed
		},
		ModifyResponse: func(resp *http.Response) error {
			if resp.Request.Method == http.MethodPost && resp.Request.URL.Query().Has("uploadId") && lost.Add(1) == 1 {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
	}
	front := httptest.NewServer(proxy)
	defer front.Close()
	env(t, front.URL, server.AccessKey, server.SecretKey)
	mustExport(t, "s3://"+server.Bucket+"/lost.raw", randomSource(usualPart+5), servers.Options{})
	if lost.Load() == 0 {
		t.Error("no answer was lost")
	}
	checkNoUploads(t, server.Bucket)
}

func TestS3Interrupted(t *testing.T) {
	server, cutter := realServer(t)
	u, err := Open(t.Context(), "s3://"+server.Bucket+"/interrupted.raw", servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	log := &stoppingLog{after: 1 << 20, stop: func() {
		cutter.Stall(true)
		cancel()
	}}
	start := time.Now()
	if err := u.Send(ctx, randomSource(2*usualPart), log); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	if err := u.Close(false); err == nil {
		t.Error("removing at a server that hangs: no error")
	}
	if took := time.Since(start); took > servertest.Hangs {
		t.Errorf("took %v", took)
	}
	cutter.Stall(false)
	later, err := Open(t.Context(), "s3://"+server.Bucket+"/interrupted.raw", servers.Options{Force: true, Resume: log.State})
	if err != nil {
		t.Fatal(err)
	}
	if err := later.Close(false); err != nil {
		t.Error(err)
	}
	checkNoUploads(t, server.Bucket)
}
