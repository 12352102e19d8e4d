package servers

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
	"flatimg/integration/rig"
)

// sftpTo returns the options and the URL of a file in a folder of a fake
// account.
func sftpTo(t *testing.T, dir, name string, faults ...string) (string, Options) {
	return "sftp://host" + dir + "/" + name, Options{SSH: fakeSSH(t, faults...)}
}

// smallSource returns a source of some megabytes with data here and there.
func smallSource(seed uint64) *fakeSource {
	r := rand.New(rand.NewPCG(seed, 1))
	var runs []chunk
	off := int64(0)
	for range 12 {
		run := chunk{off + r.Int64N(300_000), 1 + r.Int64N(500_000)}
		runs = append(runs, run)
		off = run.off + run.length
	}
	return newSource(off+r.Int64N(200_000), runs...)
}

func content(t *testing.T, src *fakeSource) []byte {
	t.Helper()
	b := make([]byte, src.Size())
	if _, err := src.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// publish sends src, reads it back and publishes it.
func publish(t *testing.T, up Upload, src *fakeSource, log *testLog) error {
	t.Helper()
	if err := up.Send(t.Context(), src, log); err != nil {
		return err
	}
	var back bytes.Buffer
	if r, ok := up.(ReadBacker); ok {
		if err := r.ReadBack(t.Context(), &back, 0, src.Size()); err != nil {
			return err
		}
		if !bytes.Equal(back.Bytes(), content(t, src)) {
			t.Error("what was read back differs")
		}
	}
	return up.Publish(t.Context())
}

// checkFolder checks that a folder has one file with the content of src.
func checkFile(t *testing.T, dir, name string, src *fakeSource) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || !bytes.Equal(b, content(t, src)) {
		t.Errorf("%s: %d bytes, %v; must be %d", name, len(b), err, src.Size())
	}
	checkOnly(t, dir, name)
}

// checkOnly checks the names in a folder.
func checkOnly(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if fmt.Sprint(names) != fmt.Sprint(want) {
		t.Errorf("in the folder: %q, want %q", names, want)
	}
}

func TestSFTPUpload(t *testing.T) {
	t.Parallel()
	src := smallSource(1)
	data, _ := dataSize(src)
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
			dest, o := sftpTo(t, dir, "disk.raw", c.faults...)
			o.Connections = c.connections
			up, err := Open(t.Context(), dest, o)
			if err != nil {
				t.Fatal(err)
			}
			log := &testLog{}
			if err := publish(t, up, src, log); err != nil {
				t.Error(err)
			}
			if err := up.Close(false); err != nil {
				t.Error(err)
			}
			if log.sent.Load() != data || log.kept.Load() != 0 {
				t.Errorf("%d bytes sent, %d kept; want %d, 0", log.sent.Load(), log.kept.Load(), data)
			}
			checkFile(t, dir, "disk.raw", src)
		})
	}
}

func TestSFTPResume(t *testing.T) {
	for seed := range uint64(6) {
		src := smallSource(seed)
		data, _ := dataSize(src)
		dir := t.TempDir()
		at := 2000 + rand.New(rand.NewPCG(seed, 2)).Int64N(data)
		dest, o := sftpTo(t, dir, "disk.raw", fmt.Sprint("in ", at))
		o.Retries = -1
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		log := &testLog{}
		err = up.Send(t.Context(), src, log)
		if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitServer {
			t.Errorf("cut after %d bytes: %v", at, err)
		}
		if err := up.Close(true); err != nil {
			t.Error(err)
		}
		if log.state == nil {
			t.Fatal("nothing is kept")
		}
		o.Resume = log.state
		up, err = Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		second := &testLog{}
		if err := publish(t, up, src, second); err != nil {
			t.Error(err)
		}
		up.Close(false)
		if got := second.sent.Load() + second.kept.Load(); got != data || log.sent.Load() < second.kept.Load() {
			t.Errorf("first %d sent; then %d sent, %d kept; want %d", log.sent.Load(), second.sent.Load(), second.kept.Load(), data)
		}
		checkFile(t, dir, "disk.raw", src)
	}
}

// TestSFTPResumeImpossible finds a part that is gone or not of the size.
func TestSFTPResumeImpossible(t *testing.T) {
	src := smallSource(3)
	for _, part := range []string{"", "short"} {
		dir := t.TempDir()
		dest, o := sftpTo(t, dir, "disk.raw")
		o.Resume = []byte(`{"part":".disk.raw.part-A","arrived":1000}`)
		if part != "" {
			os.WriteFile(dir+"/.disk.raw.part-A", []byte(part), 0o600)
		}
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		log := &testLog{}
		if err := publish(t, up, src, log); err != nil {
			t.Error(err)
		}
		up.Close(false)
		if len(log.said) != 1 || !strings.Contains(log.said[0], "anew") {
			t.Errorf("said %q", log.said)
		}
		checkFile(t, dir, "disk.raw", src)
	}
	for _, state := range []string{"x", `{"part":"../x"}`, `{"part":"disk.raw"}`, `{"part":".x.part-A","arrived":-1}`} {
		dest, o := sftpTo(t, t.TempDir(), "disk.raw")
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
	dest, o := sftpTo(t, dir, "disk.raw")
	o.Resume, o.Force = []byte(`{"part":".disk.raw.part-A","arrived":1000}`), true
	up, err := Open(t.Context(), dest, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Close(false); err != nil {
		t.Error(err)
	}
	checkOnly(t, dir, "disk.raw")
}

// TestSFTPExisting makes the target appear while the file is sent. The server's
// own rename would replace it.
func TestSFTPExisting(t *testing.T) {
	src := smallSource(4)
	for _, c := range []struct {
		force  bool
		faults []string
	}{{false, nil}, {true, nil}, {true, []string{"lose 200"}}} {
		dir := t.TempDir()
		dest, o := sftpTo(t, dir, "disk.raw", c.faults...)
		o.Force = c.force
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/disk.raw", []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		err = publish(t, up, src, &testLog{})
		up.Close(false)
		if c.force {
			if err != nil {
				t.Error(err)
			}
			checkFile(t, dir, "disk.raw", src)
			continue
		}
		if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitExists {
			t.Errorf("%v, want an error with exit code %d", err, cli.ExitExists)
		}
		if b, _ := os.ReadFile(dir + "/disk.raw"); string(b) != "old" {
			t.Error("the file was replaced")
		}
		checkOnly(t, dir, "disk.raw")
		if _, err := Open(t.Context(), dest, o); !errors.Is(err, fs.ErrExist) {
			t.Errorf("opened again: %v", err)
		}
	}
}

// TestSFTPHangs interrupts an upload to a server that does not answer.
func TestSFTPHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := Options{SSH: fakeSSHIn(t, dir, "hang 500000", "hang 0")}
	up, err := Open(t.Context(), "sftp://host"+dir+"/disk.raw", o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- up.Send(ctx, smallSource(5), &testLog{}) }()
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
	o := Options{SSH: rig.Need(t, "ssh") + " -F none -o ConnectTimeout=1"}
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
	src := smallSource(6)
	dir := t.TempDir()
	os.Mkdir(dir+"/sub", 0o700)
	os.WriteFile(dir+"/sub/real.raw", []byte("old"), 0o600)
	if err := os.Symlink("sub/real.raw", dir+"/disk.raw"); err != nil {
		t.Fatal(err)
	}
	dest, o := sftpTo(t, dir, "disk.raw")
	o.Force = true
	up, err := Open(t.Context(), dest, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(t, up, src, &testLog{}); err != nil {
		t.Error(err)
	}
	up.Close(false)
	checkFile(t, dir+"/sub", "real.raw", src)
	if fi, err := os.Lstat(dir + "/disk.raw"); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v", err)
	}
}

// TestSFTPCheck counts on what an earlier run has sent.
func TestSFTPCheck(t *testing.T) {
	dest, o := sftpTo(t, t.TempDir(), "disk.raw")
	for state, code := range map[string]int{"{}": cli.ExitNoSpace, `{"part":".disk.raw.part-A","arrived":4611686018427387904}`: 0} {
		o.Resume = []byte(state)
		up, err := Open(t.Context(), dest, o)
		if err != nil {
			t.Fatal(err)
		}
		err = up.(Checker).Check(t.Context(), File{Size: 1 << 62, Data: 1 << 62})
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
		dest, o := sftpTo(t, dir, c.name)
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
	src := smallSource(7)
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(path, content(t, src), 0o600); err != nil {
		t.Fatal(err)
	}
	dest, o := sftpTo(t, dir, "disk.raw", "out 500000")
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
	if err == nil || !mayPass(err) {
		t.Errorf("cut: %v", err)
	}
	if err := d.Read(t.Context(), &got, int64(got.Len()), -1); err != nil {
		t.Error(err)
	}
	if sha256.Sum256(got.Bytes()) != sha256.Sum256(content(t, src)) {
		t.Errorf("%d bytes that differ", got.Len())
	}
	os.Truncate(path, 1000)
	if err := d.Read(t.Context(), &got, 0, 10); err == nil || mayPass(err) {
		t.Errorf("changed: %v", err)
	}
	if _, err := OpenSource(t.Context(), dest+"x", o); err == nil {
		t.Error("a missing file was opened")
	}
}

func TestSSHTimeouts(t *testing.T) {
	for config, want := range map[string]string{
		"connecttimeout none\nserveraliveinterval 0\n": "-o ConnectTimeout=60 -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
		"connecttimeout 5\nserveraliveinterval 0\n":    "-o ServerAliveInterval=15 -o ServerAliveCountMax=4",
		"connecttimeout 5\nserveraliveinterval 7":      "",
		"": "-o ConnectTimeout=60 -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
	} {
		if got := strings.Join(sshTimeouts([]byte(config)), " "); got != want {
			t.Errorf("%q: %s", config, got)
		}
	}
}
