package sftp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/integration/rig"
)

// destination returns the options and the URL of a file in a folder of a fake
// account.
func destination(t *testing.T, dir, name string, faults ...string) (string, servers.Options) {
	return "sftp://host" + dir + "/" + name, servers.Options{SSH: fakeSSH(t, faults...)}
}

// publish sends src, reads it back and publishes it.
func publish(t *testing.T, up servers.Upload, src *servertest.Source, log *servertest.Log) error {
	t.Helper()
	if err := up.Send(t.Context(), src, log); err != nil {
		return err
	}
	var back bytes.Buffer
	if r, ok := up.(servers.ReadBacker); ok {
		if err := r.ReadBack(t.Context(), &back, 0, src.Size()); err != nil {
			return err
		}
		if !bytes.Equal(back.Bytes(), servertest.Content(t, src)) {
			t.Error("what was read back differs")
		}
	}
	return up.Publish(t.Context())
}

func TestSFTPUpload(t *testing.T) {
	t.Parallel()
	src := servertest.SmallSource(1)
	data, _ := transfer.DataSize(src)
	for _, c := range []struct {
		name        string
		connections int
		faults      []string
	}{
		{"sound", 0, nil},
		{"three connections", 3, nil},
		{"cut at once", 0, []string{"in 1500"}},
		{"cut twice", 0, []string{"in 300000", "refuse", "in 900000"}},
		{"cut of the answers", 0, []string{"out 600", "out 1200"}},
		{"cut of one of three", 3, []string{"", "in 300000", ""}},
		{"cut while it is read back", 0, []string{"out 1000000", "out 700000"}},
		{"lost answer to link", 0, []string{"lose 200"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			dest, o := destination(t, dir, "disk.raw", c.faults...)
			o.Connections = c.connections
			up, err := Open(t.Context(), dest, o)
			if err != nil {
				t.Fatal(err)
			}
			log := &servertest.Log{}
			if err := publish(t, up, src, log); err != nil {
				t.Error(err)
			}
			if err := up.Close(false); err != nil {
				t.Error(err)
			}
			if log.SentBytes.Load() != data || log.KeptBytes.Load() != 0 {
				t.Errorf("%d bytes sent, %d kept; want %d, 0", log.SentBytes.Load(), log.KeptBytes.Load(), data)
			}
			servertest.CheckFile(t, dir, "disk.raw", src)
		})
	}
}

func TestSFTPResume(t *testing.T) {
	for seed := range uint64(6) {
		src := servertest.SmallSource(seed)
		data, _ := transfer.DataSize(src)
		dir := t.TempDir()
		at := 2000 + rand.New(rand.NewPCG(seed, 2)).Int64N(data)
		dest, o := destination(t, dir, "disk.raw", fmt.Sprint("in ", at))
		o.Retries = -1
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		log := &servertest.Log{}
		err = up.Send(t.Context(), src, log)
		if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitServer {
			t.Errorf("cut after %d bytes: %v", at, err)
		}
		if err := up.Close(true); err != nil {
			t.Error(err)
		}
		if log.State == nil {
			t.Fatal("nothing is kept")
		}
		o.Resume = log.State
		up, err = Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		second := &servertest.Log{}
		if err := publish(t, up, src, second); err != nil {
			t.Error(err)
		}
		up.Close(false)
		if got := second.SentBytes.Load() + second.KeptBytes.Load(); got != data || log.SentBytes.Load() < second.KeptBytes.Load() {
			t.Errorf("first %d sent; then %d sent, %d kept; want %d", log.SentBytes.Load(), second.SentBytes.Load(), second.KeptBytes.Load(), data)
		}
		servertest.CheckFile(t, dir, "disk.raw", src)
	}
}

// TestSFTPResumeImpossible finds a part that is gone or not of the size.
func TestSFTPResumeImpossible(t *testing.T) {
	src := servertest.SmallSource(3)
	for _, part := range []string{"", "short"} {
		dir := t.TempDir()
		dest, o := destination(t, dir, "disk.raw")
		o.Resume = []byte(`{"part":".disk.raw.part-A","arrived":1000}`)
		if part != "" {
			os.WriteFile(dir+"/.disk.raw.part-A", []byte(part), 0o600)
		}
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		log := &servertest.Log{}
		if err := publish(t, up, src, log); err != nil {
			t.Error(err)
		}
		up.Close(false)
		if len(log.Said) != 1 || !strings.Contains(log.Said[0], "anew") {
			t.Errorf("said %q", log.Said)
		}
		servertest.CheckFile(t, dir, "disk.raw", src)
	}
	for _, state := range []string{"x", `{"part":"../x"}`, `{"part":"disk.raw"}`, `{"part":".x.part-A","arrived":-1}`} {
		dest, o := destination(t, t.TempDir(), "disk.raw")
		o.Resume = []byte(state)
		if _, err := Open(t.Context(), dest, o); err == nil {
			t.Errorf("%s: no error", state)
		}
	}
}

// TestSFTPRemove removes what an earlier run has left.
func TestSFTPRemove(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"disk.raw", ".disk.raw.part-A"} {
		os.WriteFile(filepath.Join(dir, name), nil, 0o600)
	}
	dest, o := destination(t, dir, "disk.raw")
	o.Resume, o.Force = []byte(`{"part":".disk.raw.part-A","arrived":1000}`), true
	up, err := Open(t.Context(), dest, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Close(false); err != nil {
		t.Error(err)
	}
	servertest.CheckOnly(t, dir, "disk.raw")
}

// TestSFTPExisting makes the target appear while the file is sent. The server's
// own rename would replace it.
func TestSFTPExisting(t *testing.T) {
	src := servertest.SmallSource(4)
	for _, c := range []struct {
		force  bool
		faults []string
	}{{false, nil}, {true, nil}, {true, []string{"lose 200"}}} {
		dir := t.TempDir()
		dest, o := destination(t, dir, "disk.raw", c.faults...)
		o.Force = c.force
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/disk.raw", []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		err = publish(t, up, src, &servertest.Log{})
		up.Close(false)
		if c.force {
			if err != nil {
				t.Error(err)
			}
			servertest.CheckFile(t, dir, "disk.raw", src)
			continue
		}
		if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitExists {
			t.Errorf("%v, want an error with exit code %d", err, cli.ExitExists)
		}
		if b, _ := os.ReadFile(dir + "/disk.raw"); string(b) != "old" {
			t.Error("the file was replaced")
		}
		servertest.CheckOnly(t, dir, "disk.raw")
		if _, err := Open(t.Context(), dest, o); !errors.Is(err, fs.ErrExist) {
			t.Errorf("opened again: %v", err)
		}
	}
}

// TestSFTPHangs interrupts an upload to a server that does not answer.
func TestSFTPHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := servers.Options{SSH: fakeSSHIn(t, dir, "hang 500000", "hang 0")}
	up, err := Open(t.Context(), "sftp://host"+dir+"/disk.raw", o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- up.Send(ctx, servertest.SmallSource(5), &servertest.Log{}) }()
	rig.Eventually(t, time.Minute, "the server hangs", func() bool {
		_, err := os.Stat(dir + "/faults.hung")
		return err == nil
	})
	begin := time.Now()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := up.Close(false); err == nil || !strings.Contains(err.Error(), "left over") {
		t.Errorf("close: %v", err)
	}
	// Some seconds of grace, and not the 10 minutes of a silent server.
	if took := time.Since(begin); took > time.Minute {
		t.Errorf("it took %v", took)
	}
}

// TestSSHSilent connects to a host that says nothing before the login.
func TestSSHSilent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := servers.Options{SSH: rig.Need(t, "ssh") + " -F none -o ConnectTimeout=1"}
	begin := time.Now()
	_, err = Open(t.Context(), "sftp://"+l.Addr().String()+"/disk.raw", o)
	if err == nil || cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("%v", err)
	}
	// Not the minute that it takes by default.
	if took := time.Since(begin); took > 50*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestSFTPReplacesBehindLink replaces what a symbolic link points to.
func TestSFTPReplacesBehindLink(t *testing.T) {
	src := servertest.SmallSource(6)
	dir := t.TempDir()
	os.Mkdir(dir+"/sub", 0o700)
	os.WriteFile(dir+"/sub/real.raw", []byte("old"), 0o600)
	if err := os.Symlink("sub/real.raw", dir+"/disk.raw"); err != nil {
		t.Fatal(err)
	}
	dest, o := destination(t, dir, "disk.raw")
	o.Force = true
	up, err := Open(t.Context(), dest, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(t, up, src, &servertest.Log{}); err != nil {
		t.Error(err)
	}
	up.Close(false)
	servertest.CheckFile(t, dir+"/sub", "real.raw", src)
	if fi, err := os.Lstat(dir + "/disk.raw"); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v", err)
	}
}

// TestSFTPCheck counts on what an earlier run has sent.
func TestSFTPCheck(t *testing.T) {
	dest, o := destination(t, t.TempDir(), "disk.raw")
	for state, code := range map[string]int{"{}": cli.ExitNoSpace, `{"part":".disk.raw.part-A","arrived":4611686018427387904}`: 0} {
		o.Resume = []byte(state)
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		err = up.(servers.Checker).Check(t.Context(), servers.File{Size: 1 << 62, Data: 1 << 62})
		if code == 0 && err != nil || code != 0 && (err == nil || cli.ExitCode(err) != code) {
			t.Errorf("%s: %v, want exit code %d", state, err, code)
		}
		up.Close(true)
	}
}

func TestSFTPFails(t *testing.T) {
	dir := t.TempDir()
	os.Mkdir(dir+"/sub", 0o700)
	os.WriteFile(dir+"/file", nil, 0o600)
	for _, c := range []struct {
		name string
		code int
		text string
	}{
		{"missing/disk.raw", cli.ExitServer, "no folder"},
		{"file", cli.ExitExists, "exists"},
		{"sub/", 0, ""},
		{"../../../../../../../dev/null", cli.ExitUsage, "not a regular"},
	} {
		dest, o := destination(t, dir, c.name)
		o.Name = "disk.raw"
		up, err := Open(t.Context(), dest, o)
		if c.code == 0 {
			if err != nil || !strings.HasSuffix(up.String(), "/sub/disk.raw") {
				t.Errorf("%s: %v", c.name, err)
			}
			up.Close(false)
			continue
		}
		if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestSFTPDownload(t *testing.T) {
	src := servertest.SmallSource(7)
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(path, servertest.Content(t, src), 0o600); err != nil {
		t.Fatal(err)
	}
	dest, o := destination(t, dir, "disk.raw", "out 500000")
	d, err := OpenSource(t.Context(), dest, o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != src.Size() || d.Version() == "" {
		t.Errorf("size %d, version %q", d.Size(), d.Version())
	}
	var got bytes.Buffer
	err = d.Read(t.Context(), &got, 0, -1)
	if err == nil || !transfer.MayPass(err) {
		t.Errorf("cut: %v", err)
	}
	if err := d.Read(t.Context(), &got, int64(got.Len()), -1); err != nil {
		t.Error(err)
	}
	if sha256.Sum256(got.Bytes()) != sha256.Sum256(servertest.Content(t, src)) {
		t.Errorf("%d bytes that differ", got.Len())
	}
	os.Truncate(path, 1000)
	if err := d.Read(t.Context(), &got, 0, 10); err == nil || transfer.MayPass(err) {
		t.Errorf("changed: %v", err)
	}
	if _, err := OpenSource(t.Context(), dest+"x", o); err == nil {
		t.Error("a missing file was opened")
	}
}
