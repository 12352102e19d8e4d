package nbd

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// nbdkit starts nbdkit on a Unix socket and returns the URL of its default
// export.
func nbdkit(t testing.TB, args ...string) string {
	t.Helper()
	address, _ := startNBDKit(t, args...)
	return address
}

func startNBDKit(t testing.TB, args ...string) (string, *rig.Process) {
	t.Helper()
	socket := newSocket(t)
	p := start(t, socket, rig.Need(t, "nbdkit"), append([]string{"-f", "--unix", socket}, args...)...)
	return "nbd+unix:///?socket=" + socket, p
}

// qemuNBD starts qemu-nbd on a Unix socket and returns the URL of its export.
func qemuNBD(t testing.TB, args ...string) string {
	t.Helper()
	socket := newSocket(t)
	start(t, socket, rig.Need(t, "qemu-nbd"), append([]string{"-t", "-x", "disk", "-k", socket}, args...)...)
	return "nbd+unix:///disk?socket=" + socket
}

// newSocket returns a path that is short, unlike those in t.TempDir: a socket's
// path has a limit.
func newSocket(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// start starts a server and waits until it listens.
func start(t testing.TB, socket, name string, args ...string) *rig.Process {
	t.Helper()
	p := rig.Start(t, rig.Command(name, args...))
	rig.Eventually(t, time.Minute, "the server listens", func() bool {
		if !p.Running() {
			t.Fatalf("%s ended: %s", name, p.Output())
		}
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return p
}

// dialURL connects to text, for as long as the test runs.
func dialURL(t testing.TB, text string, o Options) *Client {
	t.Helper()
	a, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return dialFake(t, a, o)
}

// shadow is an export with a copy of it in memory.
type shadow struct {
	*Client
	want []byte
}

// write writes n pieces of random content to disjoint parts of the export at
// the same time, in all ways there are, at multiples of align bytes.
func (s *shadow) write(t *testing.T, seed byte, n int, align int64) {
	t.Helper()
	source := rand.NewChaCha8([32]byte{seed})
	r := rand.New(source)
	part := s.Size() / int64(n) &^ (align - 1)
	all := make([]byte, s.Size())
	source.Read(all)
	f := fileOf(t, all)
	var group sync.WaitGroup
	for i := range int64(n) {
		off := i * part
		if r.IntN(2) == 0 {
			off += align
		}
		length := (i+1)*part - off
		kind := r.IntN(5)
		target := s.want[off:][:length]
		if kind < 3 {
			copy(target, all[off:])
		} else {
			clear(target)
		}
		group.Go(func() {
			var err error
			switch kind {
			case 0:
				err = s.WriteAt(t.Context(), target, off)
			case 1, 2:
				err = s.WriteFrom(t.Context(), f, off, off, length)
			case 3, 4:
				err = s.WriteZeroes(t.Context(), off, length, kind == 3)
			}
			if err != nil {
				t.Errorf("write of kind %d, %d bytes at %#x: %v", kind, length, off, err)
			}
		})
	}
	group.Wait()
	if err := s.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

// check reads the export in pieces that begin and end anywhere.
func (s *shadow) check(t *testing.T) {
	t.Helper()
	var group sync.WaitGroup
	const piece = 200003
	for off := int64(0); off < s.Size(); off += piece {
		group.Go(func() {
			p := make([]byte, min(piece, s.Size()-off))
			if err := s.ReadAt(t.Context(), p, off); err != nil {
				t.Errorf("read at %#x: %v", off, err)
			} else if !bytes.Equal(p, s.want[off:][:len(p)]) {
				t.Errorf("the content differs at %#x", off)
			}
		})
	}
	group.Wait()
	s.checkStatus(t)
}

// checkStatus goes through the runs and returns how many bytes are holes.
func (s *shadow) checkStatus(t *testing.T) (holes int64) {
	t.Helper()
	for off := int64(0); off < s.Size(); {
		runs, err := s.BlockStatus(t.Context(), off, s.Size()-off)
		if err != nil {
			t.Fatal(err)
		}
		for _, run := range runs {
			if run.Offset != off || run.Length <= 0 || run.Length > s.Size()-off {
				t.Fatalf("run %+v, want one at %#x", run, off)
			}
			if run.Zero && len(bytes.Trim(s.want[off:][:run.Length], "\x00")) > 0 {
				t.Errorf("run %+v is not zeros", run)
			}
			if run.Hole {
				holes += run.Length
			}
			off += run.Length
		}
	}
	return holes
}

func TestServers(t *testing.T) {
	for _, c := range []struct {
		name  string
		align int64
		start func(t *testing.T) string
	}{
		{"memory", 512, func(t *testing.T) string { return nbdkit(t, "memory", "4M") }},
		{"memory, any byte", 1, func(t *testing.T) string { return nbdkit(t, "memory", "4M") }},
		{"file, any byte", 1, func(t *testing.T) string { return nbdkit(t, "file", disk(t, 4<<20)) }},
		{"odd size", 1, func(t *testing.T) string { return nbdkit(t, "memory", "4000001") }},
		{"small blocks", 512, func(t *testing.T) string {
			return nbdkit(t, "--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=4096",
				"blocksize-preferred=64K", "blocksize-maximum=256K", "blocksize-error-policy=error")
		}},
		{"large blocks", 512, func(t *testing.T) string {
			return nbdkit(t, "--filter=blocksize-policy", "memory", "4M", "blocksize-minimum=64K",
				"blocksize-preferred=64K", "blocksize-maximum=1M", "blocksize-error-policy=error")
		}},
		{"no zeroing", 512, func(t *testing.T) string { return nbdkit(t, "--filter=nozero", "memory", "4M") }},
		{"no structured replies", 512, func(t *testing.T) string { return nbdkit(t, "--no-sr", "memory", "4M") }},
		{"no parallel requests", 512, func(t *testing.T) string { return nbdkit(t, "--filter=noparallel", "memory", "4M") }},
		{"out of order", 512, func(t *testing.T) string {
			return nbdkit(t, "--filter=delay", "memory", "4M", "delay-read=5ms", "delay-write=1ms", "delay-zero=10ms")
		}},
		{"qemu-nbd", 512, func(t *testing.T) string { return qemuNBD(t, "-f", "raw", "-e", "4", disk(t, 4<<20)) }},
		{"qemu-nbd, any byte", 1, func(t *testing.T) string {
			return qemuNBD(t, "-f", "qcow2", "--discard=unmap", "--detect-zeroes=unmap", qcow2(t, 4<<20))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			address := c.start(t)
			s := &shadow{Client: dialURL(t, address, Options{Connections: 3, Status: true})}
			s.want = make([]byte, s.Size())
			s.check(t)
			s.write(t, 1, 13, c.align)
			s.write(t, 2, 5, c.align)
			s.check(t)
			s.Close() // qemu-nbd serves one client at a time
			compare(t, address, s.want)
		})
	}
}

// compare compares an export with what an independent client reads.
func compare(t *testing.T, address string, want []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "copy")
	rig.Run(t, "nbdcopy", address, path)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("nbdcopy reads other content")
	}
}

// disk returns a raw file of size bytes.
func disk(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func qcow2(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	rig.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, strconv.FormatInt(size, 10))
	return path
}

// TestHoles zeroes with and without holes.
func TestHoles(t *testing.T) {
	path := disk(t, 4<<20)
	c := dialURL(t, nbdkit(t, "file", path), Options{Status: true})
	blocks := func() int64 {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	ctx := t.Context()
	if err := c.WriteAt(ctx, bytes.Repeat([]byte{1}, 4<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteZeroes(ctx, 0, 2<<20, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if n := blocks(); n < 4<<20 {
		t.Errorf("%d bytes allocated after zeroing without holes", n)
	}
	if err := c.WriteZeroes(ctx, 0, 2<<20, true); err != nil {
		t.Fatal(err)
	}
	if n := blocks(); n > 3<<20 {
		t.Errorf("%d bytes allocated after zeroing with holes", n)
	}
	s := &shadow{c, slices.Concat(make([]byte, 2<<20), bytes.Repeat([]byte{1}, 2<<20))}
	s.check(t)
	if holes := s.checkStatus(t); holes < 1<<20 {
		t.Errorf("%d bytes of holes", holes)
	}
}

func TestMultiConn(t *testing.T) {
	several := nbdkit(t, "memory", "1M")
	// The client does without connections that are late (joinTimeout).
	rig.Eventually(t, time.Minute, "4 connections", func() bool {
		c := dialURL(t, several, Options{Connections: 4})
		defer c.Close()
		if !c.Flags().MultiConn {
			t.Fatalf("%+v", c.Flags())
		}
		return c.Connections() == 4
	})
	single := nbdkit(t, "--filter=multi-conn", "memory", "1M", "multi-conn-mode=disable")
	if c := dialURL(t, single, Options{Connections: 4}); c.Connections() != 1 {
		t.Errorf("%d connections to a server that is for one", c.Connections())
	}
}

// TestServerErrors has a full disk, and one that fails after a while.
func TestServerErrors(t *testing.T) {
	ctx := t.Context()
	c := dialURL(t, nbdkit(t, "full", "1M"), Options{})
	if err := c.WriteAt(ctx, []byte("x"), 0); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
	c = dialURL(t, nbdkit(t, "--filter=error", "memory", "1M", "error=EIO", "error-pread-rate=100%"), Options{})
	if err := c.ReadAt(ctx, make([]byte, 512), 4096); !errors.Is(err, syscall.EIO) || IsConnectionError(err) {
		t.Errorf("%v, want EIO", err)
	}
	if err := c.WriteAt(ctx, make([]byte, 512), 4096); err != nil {
		t.Errorf("a write after it: %v", err)
	}
	c = dialURL(t, nbdkit(t, "-r", "memory", "1M"), Options{})
	if err := c.WriteAt(ctx, make([]byte, 512), 0); !errors.Is(err, syscall.EPERM) || !c.Flags().ReadOnly {
		t.Errorf("%v, want EPERM", err)
	}
}

func TestExports(t *testing.T) {
	address := qemuNBD(t, "-f", "raw", disk(t, 1<<20))
	a, err := Parse(strings.Replace(address, "/disk?", "/other?", 1))
	if err != nil {
		t.Fatal(err)
	}
	_, err = Dial(t.Context(), a, Options{Status: true})
	if e, ok := errors.AsType[*ExportError](err); !ok || !slices.Equal(e.Exports, []string{"disk"}) {
		t.Errorf("%v, want an error that lists the exports", err)
	}
	if a, err = Parse(nbdkit(t, "--oldstyle", "memory", "1M")); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), a, Options{}); !errors.Is(err, ErrOldstyle) {
		t.Errorf("%v, want %v", err, ErrOldstyle)
	}
	a.Socket += "-none"
	if _, err := Dial(t.Context(), a, Options{}); !IsConnectionError(err) {
		t.Errorf("%v, want a connection error", err)
	}
}

// TestKilledServer kills a server with requests in flight.
func TestKilledServer(t *testing.T) {
	address, p := startNBDKit(t, "--filter=delay", "memory", "1M", "wdelay=60")
	c := dialURL(t, address, Options{})
	failed := make(chan error, 1)
	go func() { failed <- c.WriteAt(t.Context(), make([]byte, 512), 0) }()
	rig.Eventually(t, time.Minute, "the request is in flight", func() bool { return len(c.conns[0].slots) == 1 })
	p.Signal(syscall.SIGKILL)
	if err := <-failed; !IsConnectionError(err) {
		t.Errorf("%v, want a connection error", err)
	}
}
