package webdav

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/integration/rig"
)

// davServers are the real ones.
func davServers() map[string]func(rig.T) *rig.DAVServer {
	return map[string]func(rig.T) *rig.DAVServer{"nginx": rig.Nginx, "apache": rig.Apache}
}

// wantOnly checks that a folder has these files and no other.
func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, e := range entries {
		if e.Type().IsRegular() {
			got[e.Name()] = true
		}
	}
	for _, name := range names {
		if !got[name] {
			t.Errorf("no file %s", name)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("left over: %v", got)
	}
}

func TestHTTPServers(t *testing.T) {
	t.Parallel()
	for name, start := range davServers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			src := servertest.SparseSource(20<<20+17, 7)
			log := &servertest.Log{}
			dest := s.URL + "a%20disk%3f.raw"
			if err := export(t, t.Context(), dest, servers.Options{}, src, log); err != nil {
				t.Fatal(err)
			}
			wantOnly(t, s.Dir, "a disk?.raw")
			path := filepath.Join(s.Dir, "a disk?.raw")
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
				t.Fatalf("other bytes arrived: %v", err)
			}
			if data, _ := transfer.DataSize(src); log.SentBytes.Load() != data {
				t.Errorf("%d bytes counted, want %d", log.SentBytes.Load(), data)
			}
			if got, err := fetch(t, dest, servers.Options{}); err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
				t.Errorf("fetched %d bytes, %v", len(got), err)
			}

			readOld(t, dest, path, src)

			// A target that is there.
			err := export(t, t.Context(), dest, servers.Options{}, src, log)
			if !errors.Is(err, fs.ErrExist) || cli.ExitCode(err) != cli.ExitExists {
				t.Errorf("existing target: %v", err)
			}
			other := servertest.SparseSource(3<<20, 8)
			if err := export(t, t.Context(), dest, servers.Options{Force: true}, other, log); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(path); !bytes.Equal(got, servertest.Content(t, other)) {
				t.Error("not replaced")
			}
			wantOnly(t, s.Dir, "a disk?.raw")

			// Folders.
			if err := os.Mkdir(filepath.Join(s.Dir, "folder"), 0o777); err != nil {
				t.Fatal(err)
			}
			os.Chmod(filepath.Join(s.Dir, "folder"), 0o777)
			for i, dest := range []string{s.URL + "folder/", s.URL + "folder"} {
				name := []string{"one", "two"}[i]
				if err := export(t, t.Context(), dest, servers.Options{Name: name}, other, log); err != nil {
					t.Errorf("%s: %v", dest, err)
				}
			}
			wantOnly(t, filepath.Join(s.Dir, "folder"), "one", "two")
			// An empty file.
			if err := export(t, t.Context(), s.URL+"folder/empty", servers.Options{}, servertest.NewSource(0), log); err != nil {
				t.Error(err)
			}
			if got, err := fetch(t, s.URL+"folder/empty", servers.Options{}); err != nil || len(got) != 0 {
				t.Errorf("an empty file: %d bytes, %v", len(got), err)
			}
		})
	}
}

// readOld fetches a file in parts, which takes one that has not changed lately,
// and then another that has taken its place.
func readOld(t *testing.T, url, path string, src servers.Source) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	d, err := OpenSource(t.Context(), url, servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Version() == "" || d.Lanes() < 2 || d.Size() != src.Size() {
		t.Errorf("version %q, %d lanes, size %d", d.Version(), d.Lanes(), d.Size())
	}
	var parts [3]bytes.Buffer
	errs := make(chan error)
	for i := range parts {
		go func() {
			const part = 7 << 20
			errs <- d.Read(t.Context(), &parts[i], int64(i)*part, min(part, d.Size()-int64(i)*part))
		}()
	}
	for range parts {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(append(append(parts[0].Bytes(), parts[1].Bytes()...), parts[2].Bytes()...), servertest.Content(t, src)) {
		t.Error("fetched other bytes")
	}
	if err := os.Chtimes(path, old, old.Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := d.Read(t.Context(), io.Discard, 5, 5); err == nil || !strings.Contains(err.Error(), "has changed") || transfer.MayPass(err) {
		t.Errorf("another file: %v", err)
	}
}

func TestHTTPServerRefuses(t *testing.T) {
	t.Parallel()
	for name, start := range davServers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			secret := filepath.Join(t.TempDir(), "password")
			os.WriteFile(secret, []byte(s.Password+"\n"), 0o600)
			wrong := filepath.Join(t.TempDir(), "wrong")
			os.WriteFile(wrong, []byte("not it"), 0o600)
			withUser := strings.Replace(s.AuthURL, "://", "://"+s.User+"@", 1)
			dav := strings.Replace(s.TLSURL, "https://", "davs://", 1)
			src := servertest.SparseSource(1<<20, 9)
			for _, c := range []struct {
				what, dest string
				o          servers.Options
				code       int
				hint       string
			}{
				{"user in the URL", withUser + "a", servers.Options{PasswordFile: secret}, 0, ""},
				{"user as option", s.AuthURL + "b", servers.Options{User: s.User, PasswordFile: secret}, 0, ""},
				{"wrong password", withUser + "c", servers.Options{PasswordFile: wrong}, cli.ExitServer, "password"},
				{"no user", s.AuthURL + "c", servers.Options{}, cli.ExitServer, "--user"},
				{"its certificate", dav + "a", servers.Options{CACert: s.Certs.CA}, 0, ""},
				{"unknown certificate", dav + "b", servers.Options{}, cli.ExitServer, "--cacert"},
				{"no TLS", "https://" + s.Address + "/b", servers.Options{}, cli.ExitServer, "http://"},
				{"a password in the URL", "http://me:pass@" + s.Address + "/b", servers.Options{}, cli.ExitUsage, "--password-file"},
			} {
				err := export(t, t.Context(), c.dest, c.o, src, &servertest.Log{})
				if c.code == 0 {
					if err != nil {
						t.Errorf("%s: %v", c.what, err)
					}
					continue
				}
				if err == nil || cli.ExitCode(err) != c.code || !strings.Contains(cli.Hint(err), c.hint) {
					t.Errorf("%s: %v, exit code %d, hint %q", c.what, err, cli.ExitCode(err), cli.Hint(err))
				}
				if strings.Contains(err.Error(), s.Password) {
					t.Errorf("%s: the error tells the password: %v", c.what, err)
				}
			}
			wantOnly(t, filepath.Join(s.Dir, "auth"), "a", "b")
			wantOnly(t, s.Dir, "a")
		})
	}
}

func TestHTTPNginxLimits(t *testing.T) {
	t.Parallel()
	s := rig.Nginx(t)
	src := servertest.SparseSource(3<<20, 10)
	err := export(t, t.Context(), s.SmallURL+"a", servers.Options{}, src, &servertest.Log{})
	if err == nil || !strings.Contains(cli.Hint(err), "client_max_body_size") {
		t.Errorf("too large: %v, hint %q", err, cli.Hint(err))
	}
	wantOnly(t, filepath.Join(s.Dir, "small"))

	err = export(t, t.Context(), s.PutURL+"a", servers.Options{}, src, &servertest.Log{})
	if err == nil || !strings.Contains(cli.Hint(err), "--direct") {
		t.Errorf("no MOVE: %v, hint %q", err, cli.Hint(err))
	}
	wantOnly(t, filepath.Join(s.Dir, "put"))
	if err := export(t, t.Context(), s.PutURL+"a", servers.Options{Direct: true}, src, &servertest.Log{}); err != nil {
		t.Error(err)
	}
	if err := export(t, t.Context(), s.PutURL+"a", servers.Options{Direct: true}, src, &servertest.Log{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("existing target: %v", err)
	}
	wantOnly(t, filepath.Join(s.Dir, "put"), "a")
}

// Apache would remove a folder with all that is in it.
func TestHTTPApacheFolder(t *testing.T) {
	t.Parallel()
	s := rig.Apache(t)
	up, err := Open(t.Context(), s.URL+"a", servers.Options{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send(t.Context(), servertest.NewSource(10, servertest.Data(0, 10)), &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(s.Dir, "a")
	if err := os.Mkdir(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(folder, 0o777)
	servertest.WriteFile(t, filepath.Join(folder, "b"), "another's")
	if err := up.Publish(t.Context()); cli.ExitCode(err) != cli.ExitExists {
		t.Errorf("%v", err)
	}
	up.Close(false)
	wantOnly(t, folder, "b")
	wantOnly(t, s.Dir)
}

// Apache takes pieces: holes stay holes, and a cut costs little.
func TestHTTPApacheSparse(t *testing.T) {
	t.Parallel()
	s := rig.Apache(t)
	src := servertest.NewSource(24<<20, servertest.Data(5<<20, 1<<20), servertest.Data(20<<20, 300))
	if err := export(t, t.Context(), s.URL+"sparse", servers.Options{}, src, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(s.Dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	if held := fi.Sys().(*syscall.Stat_t).Blocks * 512; held > 3<<20 {
		t.Errorf("%d bytes are allocated", held)
	}
}

func TestHTTPCut(t *testing.T) {
	t.Parallel()
	for name, start := range davServers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			src := servertest.SparseSource(24<<20, 11)
			data, _ := transfer.DataSize(src)
			for i, at := range []int64{900, 5000, 1 << 20, 13 << 20} {
				cut := rig.NewCutter(t, s.Address)
				name := fmt.Sprintf("cut%d", i)
				cut.CutAfter(at, 1<<20)
				log := &servertest.Log{}
				err := export(t, t.Context(), "http://"+cut.Address+"/"+name, servers.Options{}, src, log)
				if err != nil {
					t.Errorf("cut after %d: %v", at, err)
					continue
				}
				if got, err := os.ReadFile(filepath.Join(s.Dir, name)); err != nil || !bytes.Equal(got, servertest.Content(t, src)) {
					t.Errorf("cut after %d: other bytes", at)
				}
				if sent := log.SentBytes.Load(); sent != data {
					t.Errorf("cut after %d: %d bytes counted, want %d", at, sent, data)
				}
			}
			wantOnly(t, s.Dir, "cut0", "cut1", "cut2", "cut3")
		})
	}
}

// Each run is cut at a random point, and the next goes on; then the server is
// killed.
func TestHTTPApacheResume(t *testing.T) {
	t.Parallel()
	s := rig.Apache(t)
	src := servertest.SparseSource(24<<20, 12)
	data, _ := transfer.DataSize(src)
	random := rand.New(rand.NewPCG(13, 14))
	cut := rig.NewCutter(t, s.Address)
	dest := "http://" + cut.Address + "/resumed"
	var state []byte
	var sent int64
	for range 8 {
		up, err := Open(t.Context(), dest, servers.Options{Resume: state, Retries: -1})
		if err != nil {
			t.Fatal(err)
		}
		up.(*upload).piece = 1 << 20
		log := &servertest.Log{}
		cut.CutAfter(random.Int64N(3<<19) + 4096)
		err = up.Send(t.Context(), src, log)
		sent += log.SentBytes.Load()
		if log.State != nil {
			state = log.State
		}
		if err == nil {
			t.Fatal("not cut")
		}
		if err := up.Close(true); err != nil {
			t.Fatal(err)
		}
	}
	cut.CutAfter()
	up, err := Open(t.Context(), dest, servers.Options{Resume: state})
	if err != nil {
		t.Fatal(err)
	}
	log := &servertest.Log{}
	if err := up.Send(t.Context(), src, log); err != nil {
		t.Fatal(err)
	}
	if kept := log.KeptBytes.Load(); kept != sent || kept+log.SentBytes.Load() != data || kept == 0 {
		t.Errorf("%d bytes sent before, %d kept, %d sent of %d", sent, kept, log.SentBytes.Load(), data)
	}
	s.Stop()
	if err := up.Close(false); err == nil || !strings.Contains(err.Error(), "left over") {
		t.Errorf("a server that was killed: %v", err)
	}
	s.Restart(t)
	up, err = Open(t.Context(), dest, servers.Options{Resume: log.State})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send(t.Context(), src, log); err != nil {
		t.Fatal(err)
	}
	if err := up.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	up.Close(false)
	wantOnly(t, s.Dir, "resumed")
	if got, _ := os.ReadFile(filepath.Join(s.Dir, "resumed")); !bytes.Equal(got, servertest.Content(t, src)) {
		t.Error("other bytes arrived")
	}
}

// Of exports to one name one wins.
func TestHTTPConcurrent(t *testing.T) {
	t.Parallel()
	for name, start := range davServers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t)
			errs := make(chan error)
			sources := []*servertest.Source{servertest.SparseSource(3<<20, 15), servertest.SparseSource(3<<20, 16), servertest.SparseSource(3<<20, 17)}
			for _, src := range sources {
				go func() { errs <- export(t, t.Context(), s.URL+"one", servers.Options{}, src, &servertest.Log{}) }()
			}
			won := 0
			for range sources {
				if err := <-errs; err == nil {
					won++
				} else if !errors.Is(err, fs.ErrExist) {
					t.Error(err)
				}
			}
			got, _ := os.ReadFile(filepath.Join(s.Dir, "one"))
			whole := false
			for _, src := range sources {
				whole = whole || bytes.Equal(got, servertest.Content(t, src))
			}
			if won != 1 || !whole {
				t.Errorf("%d have won; whole: %v", won, whole)
			}
			wantOnly(t, s.Dir, "one")
		})
	}
}

func export(t *testing.T, ctx context.Context, dest string, o servers.Options, src servers.Source, log servers.Log) error {
	t.Helper()
	return servertest.Send(t, ctx, Open, dest, o, src, log)
}

func fetch(t *testing.T, url string, o servers.Options) ([]byte, error) {
	t.Helper()
	d, err := OpenSource(t.Context(), url, o)
	return servertest.Fetch(t, d, err)
}
