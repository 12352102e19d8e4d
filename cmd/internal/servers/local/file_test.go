package local

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/integration/rig"
)

// names returns the names in dir.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// sendFile sends a source to path with o, and publishes it.
func sendFile(t *testing.T, path string, src servers.Source, o servers.Options) error {
	t.Helper()
	up, err := Open(t.Context(), path, o)
	if err != nil {
		return err
	}
	defer up.Close(false)
	if err := up.Send(t.Context(), src, &servertest.Log{}); err != nil {
		return err
	}
	return up.Publish(t.Context())
}

func TestFileUpload(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.raw")
	src := servertest.NewSource(5<<20, servertest.Data(1<<20, 4096), servertest.Data(3<<20, 1<<20+77))
	if err := sendFile(t, path, src, servers.Options{}); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, src.Size())
	src.ReadAt(want, 0)
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the content differs")
	}
	if usage := servertest.DiskUsage(t, path); usage > 2<<20 {
		t.Errorf("it takes %d bytes: its holes were filled", usage)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if want, err := os.Stat(other); err != nil || fi.Mode() != want.Mode() {
		t.Errorf("mode %v, want that of a new file: %v", fi.Mode(), err)
	}
	if got := names(t, dir); got != "disk.raw" {
		t.Errorf("in the folder: %s", got)
	}
}

func TestFileUploadReadsBack(t *testing.T) {
	up, err := Open(t.Context(), filepath.Join(t.TempDir(), "disk"), servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	src := servertest.NewSource(3<<20, servertest.Data(100, 1<<20))
	if err := up.Send(t.Context(), src, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := up.(servers.ReadBacker).ReadBack(t.Context(), &got, 0, src.Size()); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, src.Size())
	src.ReadAt(want, 0)
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("what was read back differs")
	}
}

// TestUnpublishedIsRemoved closes an upload in place of publishing it.
func TestUnpublishedIsRemoved(t *testing.T) {
	dir := t.TempDir()
	up, err := Open(t.Context(), filepath.Join(dir, "disk"), servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send(t.Context(), servertest.NewSource(10, servertest.Data(0, 10)), &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	if err := up.Close(false); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("left over: %s", got)
	}
}

func TestExisting(t *testing.T) {
	dir := t.TempDir()
	src := servertest.NewSource(10, servertest.Data(0, 10))
	file, link, dangling := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "dangling")
	servertest.WriteFile(t, file, "old")
	for name, to := range map[string]string{link: "file", dangling: "nothing"} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{file, link, dangling} {
		err := sendFile(t, path, src, servers.Options{})
		if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitExists {
			t.Errorf("%s: %v, want exit code %d", path, err, cli.ExitExists)
		}
		if err := sendFile(t, path, src, servers.Options{Force: true}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if fi, err := os.Stat(path); err != nil || fi.Size() != 10 {
			t.Errorf("%s is not replaced: %v", path, err)
		}
		servertest.WriteFile(t, file, "old")
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		t.Error("the link was replaced in place of what it points to")
	}
	for _, path := range []string{"/dev/null", dir + "/sub"} {
		os.Mkdir(dir+"/sub", 0o700)
		os.Mkdir(dir+"/sub/name", 0o700)
		if err := sendFile(t, path, src, servers.Options{Name: "name", Force: true}); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
}

// TestExistsAtTheEnd creates the target while it is sent.
func TestExistsAtTheEnd(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	up, err := Open(t.Context(), path, servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send(t.Context(), servertest.NewSource(10, servertest.Data(0, 10)), &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	servertest.WriteFile(t, path, "somebody else's")
	err = up.Publish(t.Context())
	if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitExists {
		t.Errorf("%v, want exit code %d", err, cli.ExitExists)
	}
	up.Close(false)
	if b, _ := os.ReadFile(path); string(b) != "somebody else's" {
		t.Errorf("replaced by %q", b)
	}
	if got := names(t, dir); got != "disk" {
		t.Errorf("in the folder: %s", got)
	}
}

// TestPartFileWithName publishes files as on file systems that know no files
// without a name.
func TestPartFileWithName(t *testing.T) {
	for _, force := range []bool{false, true} {
		for _, isThere := range []bool{false, true} {
			dir := t.TempDir()
			path, hidden := filepath.Join(dir, "disk"), filepath.Join(dir, ".disk.part-x")
			f, err := os.Create(hidden)
			if err != nil {
				t.Fatal(err)
			}
			if isThere {
				servertest.WriteFile(t, path, "old")
			}
			p := &partFile{File: f, hidden: hidden}
			err = p.publish(path, force)
			if wantErr := isThere && !force; errors.Is(err, fs.ErrExist) != wantErr || (err != nil) != wantErr {
				t.Errorf("force %v, existing %v: %v", force, isThere, err)
			}
			if err := p.close(); err != nil {
				t.Error(err)
			}
			if got := names(t, dir); got != "disk" {
				t.Errorf("in the folder: %s", got)
			}
		}
	}
}

func TestTargetPath(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ dest, want string }{
		{dir, dir + "/name"},
		{dir + "/", dir + "/name"},
		{dir + "/new/", dir + "/new/name"},
		{dir + "/new", dir + "/new"},
		{"./x://y", "x:/y"},
	} {
		if got, err := targetPath(c.dest, "name"); got != c.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", c.dest, got, err, c.want)
		}
	}
	if _, err := targetPath("", "name"); err == nil {
		t.Error("an empty path is accepted")
	}
}

// TestUmask publishes files at a time: they must not get each other's umask.
func TestUmask(t *testing.T) {
	before := syscall.Umask(0o022)
	defer syscall.Umask(before)
	dir := t.TempDir()
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			for j := range 20 {
				path := filepath.Join(dir, fmt.Sprint(i, ".", j))
				p, err := createPart(path)
				if err == nil {
					err = errors.Join(p.publish(path, false), p.close())
				}
				if fi, e := os.Stat(path); err != nil || e != nil || fi.Mode() != 0o644 {
					t.Errorf("%v, %v, %v", err, e, fi)
				}
			}
		})
	}
	group.Wait()
	if mask := syscall.Umask(0o022); mask != 0o022 {
		t.Errorf("the umask is %o now", mask)
	}
}

func TestFreeSpace(t *testing.T) {
	if _, ok := FreeSpace(t.TempDir()); !ok {
		t.Error("the file system of the temporary folder tells nothing")
	}
	if free, ok := FreeSpace("/proc"); ok {
		t.Errorf("/proc has %d bytes free", free)
	}
}

// TestFileFull fills a file system.
func TestFileFull(t *testing.T) {
	dir := rig.TmpFS(t, 1<<20)
	src := servertest.NewSource(4<<20, servertest.Data(0, 4<<20))
	if err := sendFile(t, filepath.Join(dir, "disk"), src, servers.Options{}); cli.ExitCode(err) != cli.ExitNoSpace {
		t.Error(err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("in the folder: %s", got)
	}
}
