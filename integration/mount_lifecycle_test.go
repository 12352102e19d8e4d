package integration

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"flatimg/integration/rig"
)

// TestMountErrors has all that keeps a mount from being made.
func TestMountErrors(t *testing.T) {
	rig.NeedFUSE(t)
	dir := t.TempDir()
	im := small(t, dir, "disk", 1)
	file, missing := filepath.Join(t.TempDir(), "file"), filepath.Join(dir, "missing")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(t.TempDir(), "broken.qcow2")
	if err := os.WriteFile(broken, []byte("QFI\xfb\x00\x00\x00\x09"), 0o600); err != nil {
		t.Fatal(err)
	}
	point := t.TempDir()
	for name, test := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"no source":               {[]string{point}, 2, []string{"too few"}},
		"missing source":          {[]string{missing, point}, 3, []string{missing, "no such file"}},
		"second source missing":   {[]string{im.Top, missing, point}, 3, []string{missing}},
		"broken source":           {[]string{broken, point}, 3, []string{broken}},
		"missing mount point":     {[]string{im.Top, missing}, 8, []string{missing, "hint: ", "mkdir"}},
		"mount point is a file":   {[]string{im.Top, file}, 8, []string{file, "not a folder"}},
		"mount point is a source": {[]string{dir, dir}, 2, []string{"hide", "hint: "}},
		"unknown option":          {[]string{"-o", "noexec,lazytime", im.Top, point}, 2, []string{"lazytime", "direct_io", "noatime"}},
		"writable":                {[]string{"-o", "rw", im.Top, point}, 2, []string{"rw", "hint: "}},
		"unknown format":          {[]string{"--format", "cow", im.Top, point}, 2, []string{"cow"}},
		"log folder missing":      {[]string{"--log-file", filepath.Join(missing, "log"), im.Top, point}, 2, []string{missing, "--log-file"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, mode := range []string{"--foreground", "--foreground=false"} {
				r := rig.Flatimg(t, append([]string{"mount", mode}, test.args...)...)
				if r.Code != test.code || r.Stdout != "" {
					t.Errorf("%s: exit code %d, want %d\n%s%s", mode, r.Code, test.code, r.Stdout, r.Stderr)
				}
				for _, part := range append(test.says, "flatimg: error: ") {
					if !strings.Contains(r.Stderr, part) {
						t.Errorf("%s: no %q in:\n%s", mode, part, r.Stderr)
					}
				}
			}
		})
	}
	if rig.IsMounted(t, point) || len(rig.Servers(t, point)) > 0 {
		t.Error("a mount or a server is left")
	}
}

func TestMountOptions(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	point := rig.Mount(t, "--allow-other", "-o", "noexec,noatime,ro", "-o", "fsname=my images,default_permissions", im.Dir)
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, " "+point+" ") {
			continue
		}
		for _, part := range []string{"ro", "nosuid", "nodev", "noexec", "noatime", "fuse.flatimg", `my\040images`, "allow_other", "default_permissions"} {
			if !strings.Contains(line, part) {
				t.Errorf("no %s in %s", part, line)
			}
		}
	}
	info, err := os.Stat(view(point, im.Top, ".raw"))
	if err != nil || info.Mode() != 0o444 {
		t.Errorf("%v, %v", info, err)
	}
	rig.CompareContent(t, view(point, im.Top, ".raw"), im.Want)
}

// TestMountTwice mounts where a mount is.
func TestMountTwice(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	m := rig.NewMount(t, im.Dir)
	r := rig.Flatimg(t, "mount", im.Dir, m.Point)
	if r.Code != 8 || !strings.Contains(r.Stderr, "already") || !strings.Contains(r.Stderr, "flatimg unmount "+m.Point) {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}

	// Kill the server: what it leaves is named, and cleared.
	if err := syscall.Kill(m.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Eventually(t, soon, "the mount is stale", func() bool {
		_, err := os.Stat(m.Point)
		return errors.Is(err, syscall.ENOTCONN)
	})
	r = rig.Flatimg(t, "mount", im.Dir, m.Point)
	if r.Code != 8 || !strings.Contains(r.Stderr, "stale") || !strings.Contains(r.Stderr, "flatimg unmount "+m.Point) {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
	rig.MustFlatimg(t, "unmount", m.Point)
	if rig.IsMounted(t, m.Point) {
		t.Error("the stale mount is still there")
	}
	rig.MustFlatimg(t, "mount", im.Dir, m.Point)
	rig.CompareContent(t, view(m.Point, im.Top, ".raw"), im.Want)
}

func TestUnmountErrors(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		if r := rig.Flatimg(t, "unmount", path); r.Code != 8 || !strings.Contains(r.Stderr, path) {
			t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
		}
	}
	other := rig.TmpFS(t, 1<<20)
	if r := rig.Flatimg(t, "unmount", other); r.Code != 8 || !strings.Contains(r.Stderr, "tmpfs") {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
	if !rig.IsMounted(t, other) {
		t.Error("it unmounted what is not its own")
	}
}

// TestUnmountBusy unmounts while a view is open.
func TestUnmountBusy(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	m := rig.NewMount(t, im.Dir)
	f, err := os.Open(view(m.Point, im.Top, ".raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rig.Flatimg(t, "unmount", m.Point)
	if r.Code != 8 || !strings.Contains(r.Stderr, "busy") || !strings.Contains(r.Stderr, "--lazy") {
		t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
	}
	// Through a link, as people have them.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(m.Point, link); err != nil {
		t.Fatal(err)
	}
	rig.MustFlatimg(t, "unmount", "--lazy", link)
	if rig.IsMounted(t, m.Point) {
		t.Error("still mounted")
	}
	if text, err := io.ReadAll(f); err != nil || string(text) != string(im.Want.Bytes(0, im.Size)) {
		t.Errorf("after --lazy: %d bytes, %v", len(text), err)
	}
	f.Close()
	rig.Eventually(t, soon, "the server ends with its last user", func() bool { return len(rig.Servers(t, m.Point)) == 0 })
}

// TestMountSignals ends a server by signals, without and with a busy reader.
func TestMountSignals(t *testing.T) {
	rig.NeedFUSE(t)
	im := small(t, t.TempDir(), "disk", 1)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		for _, busy := range []bool{false, true} {
			if busy && (sig == syscall.SIGTERM || testing.Short()) {
				continue // TestMountEndsUnderLoad has that
			}
			t.Run(fmt.Sprint(sig, " busy ", busy), func(t *testing.T) {
				// By a link, which the kernel follows when it mounts only.
				point, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
				if err := os.Symlink(point, link); err != nil {
					t.Fatal(err)
				}
				server := rig.StartFlatimg(t, "mount", "--foreground", im.Dir, link)
				t.Cleanup(func() { unix.Unmount(point, unix.MNT_DETACH) })
				path := view(point, im.Top, ".raw")
				rig.Eventually(t, soon, "mounted", func() bool {
					_, err := os.Stat(path)
					return err == nil
				})
				if busy {
					f, err := os.Open(path)
					if err != nil {
						t.Fatal(err)
					}
					defer f.Close()
					go func() { // reads until it gets an error
						for b := make([]byte, 65536); err == nil; {
							_, err = f.ReadAt(b, 0)
						}
					}()
				}
				server.Signal(sig)
				if code := server.Wait(t, soon); code != 0 {
					t.Errorf("exit code %d\n%s", code, server.Output())
				}
				if rig.IsMounted(t, point) {
					t.Error("still mounted")
				}
			})
		}
	}
}

// TestMountAsUser mounts as a user who has no rights, by fusermount3, in a mount
// namespace in which that user may open /dev/fuse.
func TestMountAsUser(t *testing.T) {
	rig.NeedFUSE(t)
	rig.NeedRoot(t)
	fusermount := rig.Need(t, "fusermount3")
	if info, err := os.Stat(fusermount); err != nil || info.Mode()&os.ModeSetuid == 0 {
		t.Skipf("%s is not setuid root", fusermount)
	}
	rig.Need(t, "setpriv")
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	im := small(t, dir, "disk", 1)
	for _, path := range im.Paths {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	point := filepath.Join(dir, "point")
	const nobody = 65534
	if err := errors.Join(os.Mkdir(point, 0o755), os.Chown(point, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	device := filepath.Join(dir, "fuse")
	if err := errors.Join(unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(10, 229))), os.Chmod(device, 0o666)); err != nil {
		t.Skipf("no device for users: %v", err)
	}
	program := filepath.Join(dir, "flatimg")
	rig.Run(t, "cp", rig.Binary(t), program)
	script := `set -e
mount --bind "$1" /dev/fuse
user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
user "$2" mount "$3" "$4"
user cmp "$4/disk.raw" "$5"
test "$(user stat -c '%a %u' "$4/disk.raw")" = "400 65534"
if user "$2" mount "$3" "$4"; then exit 1; fi
user "$2" unmount "$4"
user "$2" mount $6 "$3" "$4"
user cmp "$4/disk.raw" "$5"
pid=$(user cat "$4/.flatimg/pid")
kill "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
if mountpoint -q "$4"; then exit 1; fi
if user "$2" mount --allow-other "$3" "$4"; then exit 1; fi
if user "$2" mount "$3" /proc; then exit 1; fi
`
	sandbox := ""
	if rig.HasLandlock() {
		sandbox = "--sandbox"
	}
	want := filepath.Join(dir, "want")
	rig.Run(t, "qemu-img", "convert", "-O", "raw", im.Top, want)
	if err := os.Chmod(want, 0o644); err != nil {
		t.Fatal(err)
	}
	rig.Run(t, "unshare", "--mount", "sh", "-c", script, "sh", device, program, im.Top, point, want, sandbox)
}
