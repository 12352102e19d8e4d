package nbd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/integration/rig"
)

// writeSparse makes a file of the data of src, and holes.
func writeSparse(t *testing.T, path string, src *servertest.Source) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = f.Truncate(src.Size())
	for _, r := range src.Runs {
		b := servertest.Content(t, src)[r.Off:][:r.Length]
		if _, e := f.WriteAt(b, r.Off); e != nil {
			err = e
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// openAt opens an upload that ends with the test.
func openAt(t *testing.T, uri string, o servers.Options) *upload {
	t.Helper()
	up, err := Open(t.Context(), uri, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close(true) })
	return up.(*upload)
}

// TestNBDUpload sends to a larger disk that is full of something else.
func TestNBDUpload(t *testing.T) {
	src := servertest.NewSource(8<<20+512, servertest.Data(0, 100), servertest.Data(1<<20, 1<<20+77), servertest.Data(6<<20, 2<<20+512))
	const more = 1 << 20
	for name, start := range map[string]func(path string) *rig.NBDServer{
		"nbdkit":   func(path string) *rig.NBDServer { return rig.Nbdkit(t, "file", path) },
		"qemu-nbd": func(path string) *rig.NBDServer { return rig.QemuNbd(t, path, "--discard=unmap") },
		"no zeroes": func(path string) *rig.NBDServer {
			return rig.Nbdkit(t, "--filter=nozero", "file", path)
		},
		"large blocks": func(path string) *rig.NBDServer {
			return rig.Nbdkit(t, "--filter=blocksize-policy", "file", path, "blocksize-minimum=512", "blocksize-preferred=4096", "blocksize-maximum=65536", "blocksize-error-policy=error")
		},
	} {
		path := servertest.OldDisk(t, src.Size()+more)
		up := openAt(t, start(path).URI, servers.Options{})
		log := &servertest.Log{}
		if err := up.Send(t.Context(), src, log); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if sent := log.SentBytes.Load(); sent != 3<<20+689 { // the data
			t.Errorf("%s: %d bytes counted", name, sent)
		}
		servertest.CheckReadBack(t, up, src)
		if err := errors.Join(up.Publish(t.Context()), up.Close(false)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		servertest.CheckDiskFile(t, path, src)
		rest, _ := os.ReadFile(path)
		if rest = rest[src.Size():]; !bytes.Equal(rest, bytes.Repeat([]byte{0xee}, more)) {
			t.Errorf("%s: what is behind the source was changed", name)
		}
		if used := servertest.DiskUsage(t, path); used > 6<<20 && (name == "nbdkit" || name == "qemu-nbd") {
			t.Errorf("%s: the disk takes %d bytes: its holes are filled", name, used)
		}
	}
}

// TestNBDCuts cuts the line more often than is tried again without progress.
func TestNBDCuts(t *testing.T) {
	t.Parallel()
	src := servertest.NewSource(40<<20, servertest.Data(0, 20<<20), servertest.Data(22<<20, 18<<20))
	cutter := rig.NewCutter(t, rig.Nbdkit(t, "--threads=1", "memory", "40M").Address)
	// How much is flushed between cuts depends on how busy the machine is.
	up := openAt(t, "nbd://"+cutter.Address, servers.Options{Retries: 5})
	up.flushEvery = flushLeast
	cutter.CutAfter(1<<20, 1<<20, 2<<20, 12<<20, 12<<20, 12<<20)
	log := &servertest.Log{}
	if err := up.Send(t.Context(), src, log); err != nil {
		t.Fatalf("after %d cuts: %v", cutter.Cuts(), err)
	}
	if sent := log.SentBytes.Load(); sent != 38<<20 {
		t.Errorf("%d bytes counted", sent)
	}
	if cutter.Cuts() < 5 {
		t.Errorf("only %d cuts", cutter.Cuts())
	}
	servertest.CheckReadBack(t, up, src)
}

// killedNBD sends until something has been flushed, kills the server, and
// returns what was kept.
func killedNBD(t *testing.T, server *rig.NBDServer, src servers.Source) json.RawMessage {
	t.Helper()
	up := openAt(t, server.URI, servers.Options{Retries: -1})
	up.flushEvery = flushLeast
	// A hole before the data would be there in an empty disk, too.
	hole, _, err := src.NextData(0)
	if err != nil {
		t.Fatal(err)
	}
	log := &killingLog{after: hole, before: src.Size(), kill: server.Stop}
	if err := up.Send(t.Context(), src, log); err == nil {
		t.Fatal("sent to a server that was killed")
	}
	var state uploadState
	if err := json.Unmarshal(log.State, &state); err != nil || state.Flushed <= 0 {
		t.Fatalf("kept %s", log.State)
	}
	before, _ := transfer.DataBefore(src, state.Flushed)
	if sent := log.SentBytes.Load(); sent != before {
		t.Errorf("%d bytes counted, of which %d are kept", sent, before)
	}
	return log.State
}

// killingLog kills a server when what lies before an offset between after and
// before has been flushed.
type killingLog struct {
	servertest.Log
	after, before int64
	once          sync.Once
	kill          func()
	killed        bool
}

func (l *killingLog) Keep(state any) {
	l.Log.Keep(state)
	if off := state.(uploadState).Flushed; off > l.after && off < l.before {
		l.once.Do(l.kill)
		l.killed = true
	}
}

// TestNBDResume goes on with what an earlier run has flushed, where it still is.
func TestNBDResume(t *testing.T) {
	t.Parallel()
	const data = 62 << 20
	src := servertest.NewSource(64<<20, servertest.Data(1<<20, data))
	for name, plugin := range map[string][]string{
		"same":  {"file", servertest.OldDisk(t, src.Size())},
		"empty": {"memory", fmt.Sprint(src.Size())},
	} {
		server := rig.Nbdkit(t, plugin...)
		state := killedNBD(t, server, src)
		server.Restart(t)
		up := openAt(t, server.URI, servers.Options{Resume: state})
		log := &servertest.Log{}
		if err := up.Send(t.Context(), src, log); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		kept, sent := log.KeptBytes.Load(), log.SentBytes.Load()
		if isKept := kept > 0; isKept != (name == "same") || kept+sent != data {
			t.Errorf("%s: %d bytes kept, %d sent", name, kept, sent)
		}
		if isTold := len(log.Said) > 0; isTold != (name == "empty") {
			t.Errorf("%s: told %q", name, log.Said)
		}
		servertest.CheckReadBack(t, up, src)
	}
}

// TestNBDResumeElsewhere has a state of an export of another size.
func TestNBDResumeElsewhere(t *testing.T) {
	t.Parallel()
	src := servertest.NewSource(1<<20, servertest.Data(0, 1<<20))
	for _, state := range []string{`{"size":4194304,"flushed":512}`, `{"size":2097152,"flushed":2097152}`} {
		server := rig.Nbdkit(t, "memory", "2M")
		up := openAt(t, server.URI, servers.Options{Resume: json.RawMessage(state)})
		log := &servertest.Log{}
		if err := up.Send(t.Context(), src, log); err != nil || log.SentBytes.Load() != 1<<20 || len(log.Said) != 1 {
			t.Errorf("%s: %v, %d bytes sent, told %q", state, err, log.SentBytes.Load(), log.Said)
		}
	}
	if _, err := Open(t.Context(), rig.Nbdkit(t, "memory", "2M").URI, servers.Options{Resume: json.RawMessage(`[]`)}); err == nil {
		t.Error("a damaged state is taken")
	}
}

// TestNBDLostWithin restarts a server that keeps its disk in memory: what was
// flushed has to be sent again.
func TestNBDLostWithin(t *testing.T) {
	t.Parallel()
	const data = 62 << 20
	src := servertest.NewSource(64<<20, servertest.Data(1<<20, data))
	server := rig.Nbdkit(t, "memory", "64M")
	up := openAt(t, server.URI, servers.Options{})
	up.flushEvery = flushLeast
	// A hole before the data would be there in an empty disk, too.
	log := &killingLog{after: 1 << 20, before: src.Size(), kill: func() { server.Restart(t) }}
	if err := up.Send(t.Context(), src, log); err != nil || !log.killed {
		t.Fatalf("%v; restarted: %v", err, log.killed)
	}
	if sent := log.SentBytes.Load(); sent != data {
		t.Errorf("%d bytes counted", sent)
	}
	if said := strings.Join(log.Said, "\n"); !strings.Contains(said, "beginning anew") {
		t.Errorf("told %q", said)
	}
	servertest.CheckReadBack(t, up, src)
}

// TestNBDRefused has exports that can't take the file.
func TestNBDRefused(t *testing.T) {
	t.Parallel()
	src := servertest.NewSource(2<<20, servertest.Data(0, 2<<20))
	full := filepath.Join(rig.TmpFS(t, 1<<20), "disk")
	rig.Run(t, "truncate", "-s", "2M", full)
	for name, c := range map[string]struct {
		uri  string
		code int
	}{
		"read-only": {rig.Nbdkit(t, "-r", "memory", "4M").URI, cli.ExitServer},
		"small":     {rig.Nbdkit(t, "memory", "1M").URI, cli.ExitNoSpace},
		"full":      {rig.Nbdkit(t, "file", full).URI, cli.ExitNoSpace},
		"broken":    {rig.Nbdkit(t, "--filter=error", "memory", "4M", "error=EIO", "error-pwrite-rate=100%").URI, cli.ExitServer},
		"no export": {rig.QemuNbd(t, servertest.OldDisk(t, 4<<20), "-x", "a").URI, cli.ExitServer},
	} {
		up, err := Open(t.Context(), c.uri, servers.Options{})
		if err == nil {
			err = up.Send(t.Context(), src, &servertest.Log{})
			up.Close(false)
		}
		if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != c.code {
			t.Errorf("%s: %v, want exit code %d", name, err, c.code)
		}
		if transfer.MayPass(err) {
			t.Errorf("%s: tried again", name)
		}
	}
	small := openAt(t, rig.Nbdkit(t, "memory", "1M").URI, servers.Options{})
	if err := small.Check(t.Context(), servers.File{Size: 2 << 20}); cli.ExitCode(err) != cli.ExitNoSpace {
		t.Errorf("check: %v", err)
	}
	if err := small.Check(t.Context(), servers.File{Size: 1000, Format: "vhd", ReadFromEnd: true}); cli.ExitCode(err) != cli.ExitUsage {
		t.Errorf("check: %v", err)
	}
}

// TestNBDSlowZeroes zeroes at a server that has to write the zeros: 1 s for what
// one request may zero, longer than the patience for what fits into one.
func TestNBDSlowZeroes(t *testing.T) {
	t.Parallel()
	src := &servertest.LargeSource{Length: 2 << 30}
	server := rig.Nbdkit(t, "eval", "get_size=echo 2147483648", "pwrite=exit 0", "can_zero=exit 0", "thread_model=echo parallel",
		"zero=sleep $(($3 >> 26))") // each at 64 MiB a second
	up := openAt(t, server.URI, servers.Options{Retries: -1})
	up.options.Timeout = 12 * time.Second
	up.broke(up.client)
	if err := up.Send(t.Context(), src, &servertest.Log{}); err != nil {
		t.Error(err)
	}
}

// TestNBDHangs interrupts an upload to a server that does not answer.
func TestNBDHangs(t *testing.T) {
	t.Parallel()
	src := servertest.NewSource(32<<20, servertest.Data(0, 32<<20))
	cutter := rig.NewCutter(t, rig.Nbdkit(t, "memory", "32M").Address)
	up := openAt(t, "nbd://"+cutter.Address, servers.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cutter.Stall(true)
	time.AfterFunc(300*time.Millisecond, cancel)
	begin := time.Now()
	if err := up.Send(ctx, src, &servertest.Log{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want %v", err, context.Canceled)
	}
	up.Close(false)
	// Some seconds of grace, and not the minutes of a silent server.
	if took := time.Since(begin); took > 40*time.Second {
		t.Errorf("it took %v", took)
	}
}

// TestNBDHuge sends 1 TiB of holes and gets it back.
func TestNBDHuge(t *testing.T) {
	if testing.Short() {
		t.Skip("servers take some seconds to zero 1 TiB")
	}
	t.Parallel()
	src := servertest.TeraSource()
	file := filepath.Join(t.TempDir(), "disk")
	rig.Run(t, "truncate", "-s", "1T", file)
	requests := filepath.Join(t.TempDir(), "requests")
	for name, server := range map[string]*rig.NBDServer{
		"nbdkit":   rig.Nbdkit(t, "--filter=log", "memory", "1T", "logfile="+requests),
		"qemu-nbd": rig.QemuNbd(t, file, "--discard=unmap"),
	} {
		begin := time.Now()
		up := openAt(t, server.URI, servers.Options{})
		if err := up.Send(t.Context(), src, &servertest.Log{}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		up.Close(false)
		down, err := OpenSource(t.Context(), server.URI, servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer down.Close()
		for off := int64(0); off < src.Length; {
			start, end, err := down.(servers.Sparse).NextData(t.Context(), off)
			if err != nil || end-start > 8<<20 {
				t.Errorf("%s: after %#x there is data in [%#x, %#x), %v", name, off, start, end, err)
				break
			}
			checkRead(t, down, src, start, end-start)
			off = end
		}
		for _, r := range src.Runs {
			checkRead(t, down, src, r.Off, r.Length)
		}
		// A second or two; to send or to read all of it would take hours.
		if took := time.Since(begin); took > 5*time.Minute {
			t.Errorf("%s: it took %v", name, took)
		}
	}
	log, err := os.ReadFile(requests)
	// Half of what there are if none zeroes more than the first.
	if zeroes := bytes.Count(log, []byte(" Zero ")); err != nil || zeroes < 1<<40/maxZeroSize || zeroes > 1<<40/zeroSize/2 {
		t.Errorf("%d requests zeroed 1 TiB, %v", zeroes, err)
	}
}

// checkRead compares a range of a download with the source.
func checkRead(t *testing.T, down servers.Download, src io.ReaderAt, off, length int64) {
	t.Helper()
	var got bytes.Buffer
	if err := down.Read(t.Context(), &got, off, length); err != nil {
		t.Errorf("read at %#x: %v", off, err)
		return
	}
	want := make([]byte, length)
	src.ReadAt(want, off)
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes at %#x differ", length, off)
	}
}

// TestNBDDownload reads in several lanes from an export with holes, over a line
// that breaks, as callers do.
func TestNBDDownload(t *testing.T) {
	t.Parallel()
	src := servertest.NewSource(24<<20+1000, servertest.Data(4096, 5<<20), servertest.Data(12<<20, 12<<20+1000))
	file := filepath.Join(t.TempDir(), "disk")
	writeSparse(t, file, src)
	for name, server := range map[string]*rig.NBDServer{
		"nbdkit": rig.Nbdkit(t, "--threads=1", "file", file), "qemu-nbd": rig.QemuNbd(t, file, "--read-only"),
	} {
		cutter := rig.NewCutter(t, server.Address)
		down, err := OpenSource(t.Context(), "nbd://"+cutter.Address, servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer down.Close()
		if got := down.Size(); got != src.Size() && got != (src.Size()+511)/512*512 {
			t.Errorf("%s: size %d", name, got)
		}
		var data []servertest.Run
		for off := int64(0); off < src.Size(); {
			start, end, err := down.(servers.Sparse).NextData(t.Context(), off)
			if err != nil {
				t.Fatal(err)
			}
			if end = min(end, src.Size()); start < end {
				data = append(data, servertest.Data(start, end-start))
			}
			off = max(end, start)
		}
		if !slices.Equal(data, src.Runs) {
			t.Errorf("%s: data %v, want %v", name, data, src.Runs)
		}
		cutter.CutRepliesAfter(3<<20, 4<<20)
		const part = 4 << 20
		var group sync.WaitGroup
		for off := int64(0); off < src.Size(); off += part {
			group.Go(func() { readLane(t, down, src, off, min(part, src.Size()-off)) })
		}
		group.Wait()
		if cutter.Cuts() != 2 {
			t.Errorf("%s: %d cuts", name, cutter.Cuts())
		}
	}
}

// readLane reads a range, again from where it broke off, as often as one lane
// may in a row.
func readLane(t *testing.T, down servers.Download, src io.ReaderAt, off, length int64) {
	var got bytes.Buffer
	r := transfer.NewRetrier(servers.Options{Retries: 3})
	for int64(got.Len()) < length {
		before := got.Len()
		err := down.Read(t.Context(), &got, off+int64(before), length-int64(before))
		if got.Len() > before {
			r.Progress()
		}
		if err == nil {
			continue
		}
		if err := r.Wait(t.Context(), "read", err); err != nil {
			t.Errorf("read at %#x: %v", off, err)
			return
		}
	}
	want := make([]byte, length)
	src.ReadAt(want, off)
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%d bytes at %#x differ", length, off)
	}
}

// brokenFile is a source whose file is shorter than it says.
type brokenFile struct {
	*servertest.LargeSource
	file *os.File
}

var _ = (servers.FileRanges)(brokenFile{})

func (s brokenFile) FileRanges(off, length int64, f func(file *os.File, at, length int64) error) error {
	return f(s.file, off, length)
}

// TestNBDSourceFails does not blame the server for a file of this machine.
func TestNBDSourceFails(t *testing.T) {
	t.Parallel()
	const size = 8 << 20
	for name, mode := range map[string]int{"short": os.O_RDONLY, "unreadable": os.O_WRONLY} {
		path := servertest.OldDisk(t, map[string]int64{"short": size - 100, "unreadable": size}[name])
		f, err := os.OpenFile(path, mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		up := openAt(t, rig.Nbdkit(t, "memory", "8M").URI, servers.Options{})
		err = up.Send(t.Context(), brokenFile{&servertest.LargeSource{Length: size, Runs: []servertest.Run{{Off: 0, Length: size}}}, f}, &servertest.Log{})
		if err == nil || transfer.Is[*cli.Error](err) || !strings.Contains(err.Error(), "what is to be sent") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
