package rsync

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		url              string
		user, host, port string
		path, arg        string
	}{
		{"rsync://host/disks/a", "", "host", "", "disks/a", "rsync://host/disks/a"},
		{"rsync://me@host:873/disks/a%20b", "me", "host", "873", "disks/a b", "rsync://me@host:873/disks/a b"},
		{"rsync://[::1]:873/disks", "", "::1", "873", "disks", "rsync://[::1]:873/disks"},
		{"rsync+ssh://me@host:22/a/b", "me", "host", "22", "/a/b", "host:/a/b"},
		{"rsync+ssh://[::1]/~/a", "", "::1", "", "./a", "[::1]:./a"},
	} {
		scheme, target, path, err := parseURL(c.url)
		if err != nil || target.User != c.user || target.Host != c.host || target.Port != c.port || path != c.path {
			t.Errorf("%s: %+v, %s, %v", c.url, target, path, err)
		}
		s := server{scheme: scheme, target: target}
		if got := s.arg(path); got != c.arg {
			t.Errorf("%s: argument %s, want %s", c.url, got, c.arg)
		}
	}
	for _, url := range []string{
		"rsync://", "rsync://host", "rsync://host/", "rsync://host:x/a", "rsync://me:secret@host/a", "rsync://me:secret@host:x/a",
		"rsync+ssh://-oProxyCommand=x/a", "rsync+ssh://-l@host/a", "rsync://host/a?b", "rsync://host/a#b", "rsync://host/%zz",
		"rsync://host/a*", "rsync+ssh://host/[a]", "rsync+ssh://host/a%5Cb", "rsync+ssh://host", "rsync://host/a%0Ab",
	} {
		_, _, _, err := parseURL(url)
		e, ok := errors.AsType[*cli.Error](err)
		if !ok || e.Code != cli.ExitUsage || e.Hint == "" {
			t.Errorf("%s: %v, want an error with a hint and exit code %d", url, err, cli.ExitUsage)
		} else if strings.Contains(e.Error(), "secret") {
			t.Errorf("%s: the error tells the password: %v", url, err)
		}
	}
}

func TestShell(t *testing.T) {
	if got, want := shell([]string{"-c", `trap "" INT; exec 'it''s'`, ""}), `/bin/sh '-c' 'trap "" INT; exec ''it''''s''' ''`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestParseOutput(t *testing.T) {
	var offs []int64
	p := &progressParser{at: func(off int64) { offs = append(offs, off) }}
	for _, text := range []string{"\r     32768   0%    0.00kB/s", "    0:00:00  \r  5373952   8%  ", " 4.80MB/s    0:00:12\n", "x y%\n12\n\n", strings.Repeat("1", 10000), "\n7 9%\n"} {
		p.Write([]byte(text))
	}
	if want := []int64{32768, 5373952, 7}; !slices.Equal(offs, want) {
		t.Errorf("offsets %v, want %v", offs, want)
	}
	e, err := parseEntry("-rw-r--r--      67108864 2026/11/30 21:30:32 a b\n")
	if want := (entry{'-', 67108864, "2026/11/30 21:30:32"}); err != nil || e != want {
		t.Errorf("%+v, %v", e, err)
	}
	for _, line := range []string{"", "x\n", "-rw x y z\n", "-rw -1 y z\n"} {
		if _, err := parseEntry(line); err == nil {
			t.Errorf("%q: no error", line)
		}
	}
}

// areaSource is a source with a file.
type areaSource struct {
	*servertest.Source
	path string
}

func (s areaSource) Path() string { return s.path }

func newAreaSource(t *testing.T, src *servertest.Source) areaSource {
	t.Helper()
	// Under another name than at its destination, or the same one.
	path := filepath.Join(t.TempDir(), []string{"area.raw", "disk.raw"}[src.Size()%2])
	if err := os.WriteFile(path, servertest.Content(t, src), 0o600); err != nil {
		t.Fatal(err)
	}
	return areaSource{src, path}
}

// place is where tests send to: a folder, and its URL.
type place struct {
	dir, url string
	o        servers.Options
	cutter   *rig.Cutter // nil over ssh
}

// places starts a daemon, and a shell in place of ssh.
func places(t *testing.T) map[string]place {
	t.Helper()
	daemon := rig.Rsyncd(t)
	cutter := rig.NewCutter(t, daemon.Address)
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(daemon.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return map[string]place{
		"daemon": {daemon.LockedDir, "rsync://" + cutter.Address + "/locked", servers.Options{User: daemon.User, PasswordFile: secret}, cutter},
		"ssh": {dir, "rsync+ssh://host" + dir, servers.Options{
			SSH: `sh -c 'while [ "$1" != host ]; do shift; done; shift; exec sh -c "$*"' it`,
		}, nil},
	}
}

// folder makes a new folder at a place.
func (p place) folder(t *testing.T) (dir, url string) {
	t.Helper()
	dir, err := os.MkdirTemp(p.dir, "it's a ")
	if err != nil {
		t.Fatal(err)
	}
	return dir, p.url + "/" + strings.ReplaceAll(filepath.Base(dir), " ", "%20")
}

// put sends src, verifies and publishes it.
func put(t *testing.T, up servers.Upload, src areaSource, log *servertest.Log) error {
	t.Helper()
	if err := up.Send(t.Context(), src, log); err != nil {
		return err
	}
	sum := sha256.Sum256(servertest.Content(t, src.Source))
	if by, err := up.(servers.Verifier).Verify(t.Context(), sum[:]); err != nil || by == "" {
		t.Errorf("verified by %q: %v", by, err)
	}
	return up.Publish(t.Context())
}

func TestRsyncUpload(t *testing.T) {
	t.Parallel()
	src := newAreaSource(t, servertest.SmallSource(1))
	data, _ := transfer.DataSize(src)
	for name, place := range places(t) {
		t.Run(name, func(t *testing.T) {
			dir, url := place.folder(t)
			o := place.o
			o.Name = "a disk.raw"
			for i := range 3 {
				// Anew, in place of an existing file, and where one appeared.
				o.Force = i > 0
				up, err := Open(t.Context(), url, o)
				if err != nil {
					t.Fatal(err)
				}
				if i == 2 {
					os.WriteFile(dir+"/a disk.raw", []byte("old"), 0o600)
				}
				log := &servertest.Log{}
				if err := put(t, up, src, log); err != nil {
					t.Fatal(err)
				}
				if err := up.Close(false); err != nil {
					t.Error(err)
				}
				if log.SentBytes.Load() != data || log.KeptBytes.Load() != 0 {
					t.Errorf("%d bytes sent, %d kept; want %d, 0", log.SentBytes.Load(), log.KeptBytes.Load(), data)
				}
				servertest.CheckFile(t, dir, "a disk.raw", src.Source)
				if fi, err := os.Stat(dir + "/a disk.raw"); err != nil || fi.Mode().Perm() != 0o644 {
					t.Errorf("mode %v, %v", fi.Mode(), err)
				}
			}
		})
	}
}

// TestRsyncOverSSH sends through a real ssh, whose command line is quoted for a
// shell and for rsync.
func TestRsyncOverSSH(t *testing.T) {
	server := rig.Sshd(t)
	src := newAreaSource(t, servertest.SmallSource(2))
	p := place{dir: t.TempDir()}
	p.url = fmt.Sprintf("rsync+ssh://%s@%s:%d%s", server.User, server.Host, server.Port, p.dir)
	dir, url := p.folder(t)
	up, err := Open(t.Context(), url+"/disk.raw", servers.Options{SSH: server.Command + ` -o 'ConnectTimeout=59' -o "AddressFamily inet"`})
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t, up, src, &servertest.Log{}); err != nil {
		t.Error(err)
	}
	up.Close(false)
	servertest.CheckFile(t, dir, "disk.raw", src.Source)
	if _, err := Open(t.Context(), url+"/other.raw", servers.Options{SSH: server.Command + " -o IdentityFile=none -F none -o BatchMode=yes"}); err == nil || cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("without a key: %v", err)
	}
}

// TestRsyncFull fills the disk of the server.
func TestRsyncFull(t *testing.T) {
	place := places(t)["ssh"]
	dir := rig.TmpFS(t, 1<<20)
	up, err := Open(t.Context(), "rsync+ssh://host"+dir+"/disk.raw", place.o)
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send(t.Context(), newAreaSource(t, servertest.SmallSource(3)), &servertest.Log{}); err == nil || cli.ExitCode(err) != cli.ExitNoSpace {
		t.Errorf("%v, want exit code %d", err, cli.ExitNoSpace)
	}
	if err := up.Close(false); err != nil {
		t.Error(err)
	}
	servertest.CheckOnly(t, dir)
}

// TestRsyncCut cuts the connection at random points: once within a run, which
// goes on by itself, and once so that a later run has to.
func TestRsyncCut(t *testing.T) {
	t.Parallel()
	place := places(t)["daemon"]
	for seed := range uint64(4) {
		src := newAreaSource(t, servertest.SmallSource(seed))
		data, _ := transfer.DataSize(src)
		r := rand.New(rand.NewPCG(seed, 2))
		for _, retries := range []int{5, -1} {
			dir, url := place.folder(t)
			o := place.o
			o.Retries = retries
			up, err := Open(t.Context(), url+"/disk.raw", o)
			if err != nil {
				t.Fatal(err)
			}
			log := &servertest.Log{}
			place.cutter.CutAfter(50_000 + r.Int64N(src.Size()/4))
			err = up.Send(t.Context(), src, log)
			if retries > 0 {
				if err != nil || log.SentBytes.Load() != data {
					t.Errorf("%d sent, want %d; %v", log.SentBytes.Load(), data, err)
				}
			} else {
				if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitServer {
					t.Fatalf("cut: %v", err)
				}
				up.Close(true)
				o.Resume, o.Retries = log.State, 0
				if up, err = Open(t.Context(), url+"/disk.raw", o); err != nil {
					t.Fatal(err)
				}
				log = &servertest.Log{}
				if err := up.Send(t.Context(), src, log); err != nil || log.SentBytes.Load()+log.KeptBytes.Load() != data {
					t.Errorf("%d sent and %d kept, want %d; %v", log.SentBytes.Load(), log.KeptBytes.Load(), data, err)
				}
			}
			if err := up.Publish(t.Context()); err != nil {
				t.Error(err)
			}
			up.Close(false)
			servertest.CheckFile(t, dir, "disk.raw", src.Source)
		}
	}
}

// TestRsyncKilled kills rsync while it sends: all that this process has started,
// so that no other test may have some.
func TestRsyncKilled(t *testing.T) {
	src := newAreaSource(t, servertest.SmallSource(8))
	for name, place := range places(t) {
		t.Run(name, func(t *testing.T) {
			dir, url := place.folder(t)
			o := place.o
			o.BandwidthLimit = 512 << 10 // so that there is time for it, also on a busy machine
			up, err := Open(t.Context(), url+"/disk.raw", o)
			if err != nil {
				t.Fatal(err)
			}
			log := &killerLog{kill: func() {
				killChildren(t, "rsync")
				up.(*upload).server.limit = 0
			}}
			if err := up.Send(t.Context(), src, log); err != nil {
				t.Fatal(err)
			}
			if len(log.Said) == 0 {
				t.Error("nothing was said about it")
			}
			if err := up.Publish(t.Context()); err != nil {
				t.Error(err)
			}
			up.Close(false)
			servertest.CheckFile(t, dir, "disk.raw", src.Source)
		})
	}
}

// killerLog calls kill once when some data has left.
type killerLog struct {
	servertest.Log
	kill func()
}

func (l *killerLog) Sent(n int64) {
	l.Log.Sent(n)
	if l.SentBytes.Load() > 256<<10 && l.kill != nil {
		l.kill()
		l.kill = nil
	}
}

// killChildren kills the child processes of that name but for the daemon.
func killChildren(t *testing.T, name string) {
	killed := false
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, path := range tasks {
		b, _ := os.ReadFile(path)
		for _, field := range strings.Fields(string(b)) {
			line, _ := os.ReadFile("/proc/" + field + "/cmdline")
			words := strings.Split(string(line), "\x00")
			if pid, err := strconv.Atoi(field); err == nil && words[0] == name && !slices.Contains(words, "--daemon") {
				killed = syscall.Kill(pid, syscall.SIGKILL) == nil || killed
			}
		}
	}
	if !killed {
		t.Errorf("no %s to kill", name)
	}
}

func TestRsyncExisting(t *testing.T) {
	src := newAreaSource(t, servertest.SmallSource(4))
	for name, place := range places(t) {
		t.Run(name, func(t *testing.T) {
			dir, url := place.folder(t)
			up, err := Open(t.Context(), url+"/disk.raw", place.o)
			if err != nil {
				t.Fatal(err)
			}
			os.WriteFile(dir+"/disk.raw", []byte("old"), 0o600)
			if err := put(t, up, src, &servertest.Log{}); !errors.Is(err, fs.ErrExist) || cli.ExitCode(err) != cli.ExitExists {
				t.Errorf("published: %v", err)
			}
			if err := up.Close(false); err != nil {
				t.Error(err)
			}
			if b, _ := os.ReadFile(dir + "/disk.raw"); string(b) != "old" {
				t.Error("the file was replaced")
			}
			servertest.CheckOnly(t, dir, "disk.raw")
			if _, err := Open(t.Context(), url+"/disk.raw", place.o); !errors.Is(err, fs.ErrExist) {
				t.Errorf("opened again: %v", err)
			}
		})
	}
}

// TestRsyncWrong finds out that what arrived differs, and sends it again.
func TestRsyncWrong(t *testing.T) {
	t.Parallel()
	src := newAreaSource(t, servertest.SmallSource(5))
	for name, place := range places(t) {
		t.Run(name, func(t *testing.T) {
			dir, url := place.folder(t)
			up, err := Open(t.Context(), url+"/disk.raw", place.o)
			if err != nil {
				t.Fatal(err)
			}
			log := &servertest.Log{}
			if err := up.Send(t.Context(), src, log); err != nil {
				t.Fatal(err)
			}
			parts, _ := filepath.Glob(strings.ReplaceAll(dir, "[", "?") + "/.disk.raw.part-*/disk.raw")
			if len(parts) != 1 {
				t.Fatalf("parts %q", parts)
			}
			f, err := os.OpenFile(parts[0], os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte("wrong"), 1<<20)
			f.Close()
			sum := sha256.Sum256(servertest.Content(t, src.Source))
			if _, err := up.(servers.Verifier).Verify(t.Context(), sum[:]); err == nil || cli.ExitCode(err) != cli.ExitServer {
				t.Errorf("verified: %v", err)
			}
			up.Close(true)
			o := place.o
			o.Resume = log.State
			if up, err = Open(t.Context(), url+"/disk.raw", o); err != nil {
				t.Fatal(err)
			}
			if err := put(t, up, src, &servertest.Log{}); err != nil {
				t.Error(err)
			}
			up.Close(false)
			servertest.CheckFile(t, dir, "disk.raw", src.Source)
		})
	}
}

// TestRsyncRemove removes what an earlier run has left, and nothing else.
func TestRsyncRemove(t *testing.T) {
	for name, place := range places(t) {
		t.Run(name, func(t *testing.T) {
			dir, url := place.folder(t)
			os.Mkdir(dir+"/.disk.raw.part-A", 0o700)
			os.Mkdir(dir+"/.disk.raw.part-AB", 0o700)
			for _, name := range []string{"disk.raw", ".disk.raw.part-A/disk.raw", ".disk.raw.part-AB/disk.raw", "other"} {
				os.WriteFile(filepath.Join(dir, name), nil, 0o600)
			}
			o := place.o
			o.Resume, o.Force = []byte(`{"part":".disk.raw.part-A"}`), true
			up, err := Open(t.Context(), url+"/disk.raw", o)
			if err != nil {
				t.Fatal(err)
			}
			if err := up.Close(false); err != nil {
				t.Error(err)
			}
			servertest.CheckOnly(t, dir, ".disk.raw.part-AB", "disk.raw", "other")
			o.Resume = []byte(`{"part":"../x"}`)
			if _, err := Open(t.Context(), url+"/disk.raw", o); err == nil {
				t.Error("a state with a path was taken")
			}
		})
	}
}

func TestRsyncFails(t *testing.T) {
	places := places(t)
	daemon, ssh := places["daemon"], places["ssh"]
	dir, _ := ssh.folder(t)
	wrong := daemon.o
	wrong.PasswordFile = filepath.Join(t.TempDir(), "wrong")
	os.WriteFile(wrong.PasswordFile, []byte("guess\n"), 0o600)
	for _, c := range []struct {
		url  string
		o    servers.Options
		code int
		text string
	}{
		{daemon.url + "/missing/disk.raw", daemon.o, cli.ExitServer, "no folder"},
		{ssh.url + "/missing/disk.raw", ssh.o, cli.ExitServer, "no folder"},
		{daemon.url + "/disk.raw", wrong, cli.ExitServer, "auth failed"},
		{daemon.url + "nothing/disk.raw", daemon.o, cli.ExitServer, "Unknown module"},
		{"rsync://127.0.0.1:1/disks/disk.raw", daemon.o, cli.ExitServer, "refused"},
		{"rsync+ssh://host/dev/null", ssh.o, cli.ExitUsage, "not a regular"},
		{ssh.url + "/" + strings.ReplaceAll(filepath.Base(dir), " ", "%20"), servers.Options{SSH: ssh.o.SSH, Name: "a*"}, cli.ExitUsage, "pattern"},
		{"rsync+ssh://host/tmp/disk.raw", servers.Options{SSH: "no-such-ssh"}, cli.ExitServer, "not found"},
	} {
		_, err := Open(t.Context(), c.url, c.o)
		if err == nil || cli.ExitCode(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v; want exit code %d and %q", c.url, err, c.code, c.text)
		} else if strings.Contains(err.Error(), "guess") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	_, url := ssh.folder(t)
	up, err := Open(t.Context(), url+"/disk.raw", ssh.o)
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send(t.Context(), servertest.NewSource(10), &servertest.Log{}); err == nil || !strings.Contains(cli.Hint(err), "--stream") {
		t.Errorf("a stream: %v", err)
	}
	up.Close(false)
}

// TestRsyncHangs interrupts an upload to a server that does not answer.
func TestRsyncHangs(t *testing.T) {
	t.Parallel()
	place := places(t)["daemon"]
	_, url := place.folder(t)
	up, err := Open(t.Context(), url+"/disk.raw", place.o)
	if err != nil {
		t.Fatal(err)
	}
	place.cutter.Stall(true)
	defer place.cutter.Stall(false)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := up.Send(ctx, newAreaSource(t, servertest.SmallSource(6)), &servertest.Log{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := up.Close(false); err == nil || !strings.Contains(err.Error(), "left over") {
		t.Errorf("close: %v", err)
	}
	// Some seconds of grace, and not the minute of a silent server.
	if took := time.Since(begin); took > 40*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestRsyncDownload(t *testing.T) {
	t.Parallel()
	src := servertest.SmallSource(9)
	want := servertest.Content(t, src)
	for name, place := range places(t) {
		t.Run(name, func(t *testing.T) {
			dir, url := place.folder(t)
			if err := os.WriteFile(dir+"/disk.raw", want, 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := OpenSource(t.Context(), url+"/disk.raw", place.o)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if d.Size() != src.Size() || d.Version() == "" || !strings.HasSuffix(d.String(), "/disk.raw") {
				t.Errorf("%s: size %d, version %q", d, d.Size(), d.Version())
			}
			sum, err := d.(servers.Summer).Checksum(t.Context())
			sha, md := sha256.Sum256(want), md5.Sum(want)
			if err != nil || !bytes.Equal(sum.Sum, map[string][]byte{"sha256": sha[:], "md5": md[:]}[sum.Algorithm]) {
				t.Errorf("checksum %+v, %v", sum, err)
			}
			path := filepath.Join(t.TempDir(), "got.raw")
			// Anew, the rest of it, and where what is there is wrong.
			for i, have := range [][]byte{nil, want[:len(want)/3], bytes.Repeat([]byte("x"), len(want)/2), bytes.Repeat([]byte("x"), len(want))} {
				os.WriteFile(path, have, 0o600)
				got := int64(0)
				if err := d.(servers.Fetcher).Fetch(t.Context(), path, func(n int64) { got += n }); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
					t.Errorf("%d: %d bytes that differ, %v", i, len(b), err)
				}
				if i < 2 && got != int64(len(want)-len(have)) {
					t.Errorf("%d: %d bytes counted, want %d", i, got, len(want)-len(have))
				}
			}
			if place.cutter != nil {
				os.Remove(path)
				place.cutter.CutRepliesAfter(src.Size() / 3)
				if err := d.(servers.Fetcher).Fetch(t.Context(), path, func(int64) {}); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, want) {
					t.Errorf("cut: %d bytes that differ, %v", len(b), err)
				}
			}
			os.WriteFile(dir+"/disk.raw", want[1:], 0o600)
			if err := d.(servers.Fetcher).Fetch(t.Context(), path, func(int64) {}); err == nil || !strings.Contains(err.Error(), "changed") {
				t.Errorf("changed: %v", err)
			}
			if _, err := OpenSource(t.Context(), url+"/none", place.o); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("missing: %v", err)
			}
			if err := d.Read(t.Context(), &bytes.Buffer{}, 0, -1); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("read: %v", err)
			}
		})
	}
}
