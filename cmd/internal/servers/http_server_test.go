package servers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/integration/rig"
)

// davServers are the real ones.
func davServers() map[string]func(rig.T) *rig.DAVServer {
	return map[string]func(rig.T) *rig.DAVServer{"nginx": rig.Nginx, "apache": rig.Apache}
}

// sparseSource returns a source of random data and holes.
func sparseSource(size int64, seed uint64) *fakeSource {
	r := rand.New(rand.NewPCG(seed, 1))
	var runs []chunk
	for off := r.Int64N(1 << 20); off < size; {
		n := min(1+r.Int64N(2<<20), size-off)
		runs = append(runs, chunk{off, n})
		off += n + 1 + r.Int64N(1<<20)
	}
	s := newSource(size, runs...)
	b := make([]byte, size)
	s.ReadAt(b, 0)
	for _, run := range runs {
		for i := run.off; i < run.off+run.length; i++ {
			b[i] = byte(r.Uint32()) | 1
		}
	}
	s.Reader = bytes.NewReader(b)
	return s
}

func bytesOf(t *testing.T, src Source) []byte {
	t.Helper()
	b := make([]byte, src.Size())
	if err := readSource(src, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
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

// export sends src as the command does.
func export(t *testing.T, ctx context.Context, dest string, o Options, src Source, log Log) error {
	t.Helper()
	up, err := Open(ctx, dest, o)
	if err != nil {
		return err
	}
	if c, ok := up.(Checker); ok {
		if err := c.Check(ctx, File{Format: "raw", Size: src.Size(), Data: src.Size(), VirtualSize: src.Size()}); err != nil {
			return errors.Join(err, up.Close(false))
		}
	}
	if err := up.Send(ctx, src, log); err != nil {
		return errors.Join(err, up.Close(true))
	}
	sum := sha256.Sum256(bytesOf(t, src))
	if v, ok := up.(Verifier); ok {
		if _, err := v.Verify(ctx, sum[:]); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return errors.Join(err, up.Close(true))
		}
	}
	var back bytes.Buffer
	if err := up.(ReadBacker).ReadBack(ctx, &back, 0, src.Size()); err != nil {
		return errors.Join(err, up.Close(true))
	}
	if !bytes.Equal(back.Bytes(), bytesOf(t, src)) {
		t.Error("read back other bytes")
	}
	if err := up.Publish(ctx); err != nil {
		return errors.Join(err, up.Close(false))
	}
	return up.Close(false)
}

func fetch(t *testing.T, url string, o Options) ([]byte, error) {
	t.Helper()
	d, err := OpenSource(t.Context(), url, o)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var got bytes.Buffer
	err = d.Read(t.Context(), &got, 0, -1)
	return got.Bytes(), err
}

func TestHTTPServers(t *testing.T) {
	for name, start := range davServers() {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			src := sparseSource(20<<20+17, 7)
			log := &testLog{}
			dest := s.URL + "a%20disk%3f.raw"
			if err := export(t, t.Context(), dest, Options{}, src, log); err != nil {
				t.Fatal(err)
			}
			wantOnly(t, s.Dir, "a disk?.raw")
			path := filepath.Join(s.Dir, "a disk?.raw")
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, bytesOf(t, src)) {
				t.Fatalf("other bytes arrived: %v", err)
			}
			if data, _ := dataSize(src); log.sent.Load() != data {
				t.Errorf("%d bytes counted, want %d", log.sent.Load(), data)
			}
			if got, err := fetch(t, dest, Options{}); err != nil || !bytes.Equal(got, bytesOf(t, src)) {
				t.Errorf("fetched %d bytes, %v", len(got), err)
			}

			// A target that is there.
			err := export(t, t.Context(), dest, Options{}, src, log)
			if !errors.Is(err, fs.ErrExist) || cli.ExitCode(err) != cli.ExitExists {
				t.Errorf("existing target: %v", err)
			}
			other := sparseSource(3<<20, 8)
			if err := export(t, t.Context(), dest, Options{Force: true}, other, log); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(path); !bytes.Equal(got, bytesOf(t, other)) {
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
				if err := export(t, t.Context(), dest, Options{Name: name}, other, log); err != nil {
					t.Errorf("%s: %v", dest, err)
				}
			}
			wantOnly(t, filepath.Join(s.Dir, "folder"), "one", "two")
			// An empty file.
			if err := export(t, t.Context(), s.URL+"folder/empty", Options{}, newSource(0), log); err != nil {
				t.Error(err)
			}
			if got, err := fetch(t, s.URL+"folder/empty", Options{}); err != nil || len(got) != 0 {
				t.Errorf("an empty file: %d bytes, %v", len(got), err)
			}
		})
	}
}

func TestHTTPServerRefuses(t *testing.T) {
	for name, start := range davServers() {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			secret := filepath.Join(t.TempDir(), "password")
			os.WriteFile(secret, []byte(s.Password+"\n"), 0o600)
			wrong := filepath.Join(t.TempDir(), "wrong")
			os.WriteFile(wrong, []byte("not it"), 0o600)
			withUser := strings.Replace(s.AuthURL, "://", "://"+s.User+"@", 1)
			dav := strings.Replace(s.TLSURL, "https://", "davs://", 1)
			src := sparseSource(1<<20, 9)
			for _, c := range []struct {
				what, dest string
				o          Options
				code       int
				hint       string
			}{
				{"user in the URL", withUser + "a", Options{PasswordFile: secret}, 0, ""},
				{"user as option", s.AuthURL + "b", Options{User: s.User, PasswordFile: secret}, 0, ""},
				{"wrong password", withUser + "c", Options{PasswordFile: wrong}, cli.ExitServer, "password"},
				{"no user", s.AuthURL + "c", Options{}, cli.ExitServer, "--user"},
				{"its certificate", dav + "a", Options{CACert: s.Certs.CA}, 0, ""},
				{"unknown certificate", dav + "b", Options{}, cli.ExitServer, "--cacert"},
				{"no TLS", "https://" + s.Address + "/b", Options{}, cli.ExitServer, "http://"},
				{"a password in the URL", "http://me:pass@" + s.Address + "/b", Options{}, cli.ExitUsage, "--password-file"},
			} {
				err := export(t, t.Context(), c.dest, c.o, src, &testLog{})
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
	s := rig.Nginx(t)
	src := sparseSource(3<<20, 10)
	err := export(t, t.Context(), s.SmallURL+"a", Options{}, src, &testLog{})
	if err == nil || !strings.Contains(cli.Hint(err), "client_max_body_size") {
		t.Errorf("too large: %v, hint %q", err, cli.Hint(err))
	}
	wantOnly(t, filepath.Join(s.Dir, "small"))

	err = export(t, t.Context(), s.PutURL+"a", Options{}, src, &testLog{})
	if err == nil || !strings.Contains(cli.Hint(err), "--direct") {
		t.Errorf("no MOVE: %v, hint %q", err, cli.Hint(err))
	}
	wantOnly(t, filepath.Join(s.Dir, "put"))
	if err := export(t, t.Context(), s.PutURL+"a", Options{Direct: true}, src, &testLog{}); err != nil {
		t.Error(err)
	}
	if err := export(t, t.Context(), s.PutURL+"a", Options{Direct: true}, src, &testLog{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("existing target: %v", err)
	}
	wantOnly(t, filepath.Join(s.Dir, "put"), "a")
}

// Apache takes pieces: holes stay holes, and a cut costs little.
func TestHTTPApacheSparse(t *testing.T) {
	s := rig.Apache(t)
	src := newSource(64<<20, chunk{5 << 20, 1 << 20}, chunk{40 << 20, 300})
	if err := export(t, t.Context(), s.URL+"sparse", Options{}, src, &testLog{}); err != nil {
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
	for name, start := range davServers() {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			src := sparseSource(24<<20, 11)
			data, _ := dataSize(src)
			for i, at := range []int64{10, 900, 5000, 1 << 20, 7 << 20, 15 << 20} {
				cut := rig.NewCutter(t, s.Address)
				dest := "http://" + cut.Address + "/cut" + string(rune('a'+i))
				cut.CutAfter(at)
				if at > 5000 {
					// Once more, and an answer.
					cut.CutAfter(at, 1<<20)
				}
				log := &testLog{}
				err := export(t, t.Context(), dest, Options{}, src, log)
				if err != nil && at > 1000 {
					t.Errorf("cut after %d: %v", at, err)
				}
				if err == nil {
					if got, err := os.ReadFile(filepath.Join(s.Dir, "cut"+string(rune('a'+i)))); err != nil || !bytes.Equal(got, bytesOf(t, src)) {
						t.Errorf("cut after %d: other bytes", at)
					}
					if sent := log.sent.Load(); sent != data {
						t.Errorf("cut after %d: %d bytes counted, want %d", at, sent, data)
					}
				}
			}
			for _, e := range must(os.ReadDir(s.Dir)) {
				if strings.HasPrefix(e.Name(), ".") {
					t.Errorf("left over: %s", e.Name())
				}
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
