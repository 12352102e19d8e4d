package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/integration/rig"
)

// loopDevice makes a block device of a file; it goes with the test.
func loopDevice(t *testing.T, file string, options ...string) string {
	t.Helper()
	rig.NeedRoot(t)
	device := strings.TrimSpace(rig.Run(t, "losetup", append(options, "--find", "--show", file)...))
	t.Cleanup(func() { rig.Run(t, "losetup", "--detach", device) })
	return device
}

// TestDevice writes to devices that are full of something else.
func TestDevice(t *testing.T) {
	// The second hole does not begin at a sector of the second device.
	src := servertest.NewSource(8<<20+512, servertest.Data(0, 100), servertest.Data(1<<20, 1<<20+512), servertest.Data(6<<20, 2<<20+512))
	for _, sector := range []string{"512", "4096"} {
		file := servertest.OldDisk(t, 9<<20+4096)
		device := loopDevice(t, file, "--sector-size="+sector)
		if _, err := Open(t.Context(), device, servers.Options{}); cli.ExitCode(err) != cli.ExitExists {
			t.Errorf("without force: %v", err)
		}
		up, err := OpenURL(t.Context(), "file://"+device, servers.Options{Force: true})
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close(false)
		if err := up.(servers.Checker).Check(t.Context(), servers.File{Size: 10 << 20}); cli.ExitCode(err) != cli.ExitNoSpace {
			t.Errorf("too large: %v", err)
		}
		log := &servertest.Log{}
		if err := up.Send(t.Context(), src, log); err != nil {
			t.Fatal(err)
		}
		if sent := log.SentBytes.Load(); sent != 3<<20+1124 {
			t.Errorf("%d bytes counted", sent)
		}
		servertest.CheckReadBack(t, up.(servers.ReadBacker), src)
		if err := errors.Join(up.Publish(t.Context()), up.Close(false)); err != nil {
			t.Error(err)
		}
		servertest.CheckDiskFile(t, file, src)
		rest, _ := os.ReadFile(file)
		if rest = rest[src.Size():]; !bytes.Equal(rest, bytes.Repeat([]byte{0xee}, len(rest))) {
			t.Error("what is behind the source was changed")
		}
		if used := servertest.DiskUsage(t, file); used > 6<<20 {
			t.Errorf("sectors of %s: it takes %d bytes: its holes are filled", sector, used)
		}
	}
}

// TestDeviceInUse has a device that is mounted, or read-only.
func TestDeviceInUse(t *testing.T) {
	file := servertest.OldDisk(t, 1<<20)
	device := loopDevice(t, file)
	f, err := openExclusive(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Open(t.Context(), device, servers.Options{Force: true}); cli.ExitCode(err) != cli.ExitRefused {
		t.Errorf("in use: %v", err)
	}
	if _, err := Open(t.Context(), loopDevice(t, file, "--read-only"), servers.Options{Force: true}); err == nil {
		t.Error("read-only: no error")
	}
}

// TestDeviceHuge sends 1 TiB of holes, which begin in the middle of a sector.
func TestDeviceHuge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	rig.Run(t, "truncate", "-s", "1T", file)
	src := servertest.TeraSource()
	up, err := Open(t.Context(), loopDevice(t, file, "--sector-size=4096"), servers.Options{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := up.Send(ctx, src, &servertest.Log{}); err != nil {
		t.Error(err)
	}
	if used := servertest.DiskUsage(t, file); used > 4<<20 {
		t.Errorf("it takes %d bytes", used)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range src.Runs {
		got, want := make([]byte, r.Length), make([]byte, r.Length)
		f.ReadAt(got, r.Off)
		src.ReadAt(want, r.Off)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %#x differ", r.Length, r.Off)
		}
	}
}

// failingSource can't tell where it has data.
type failingSource struct{ *servertest.LargeSource }

func (failingSource) NextData(int64) (start, end int64, err error) { return 0, 0, io.ErrNoProgress }

// TestDeviceSourceFails stops at once, with an error told once.
func TestDeviceSourceFails(t *testing.T) {
	file := servertest.OldDisk(t, 1<<20)
	up, err := Open(t.Context(), loopDevice(t, file), servers.Options{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	if err := up.Send(t.Context(), failingSource{&servertest.LargeSource{Length: 1 << 20}}, &servertest.Log{}); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
	up.Close(false)
	if got, _ := os.ReadFile(file); !bytes.Equal(got, bytes.Repeat([]byte{0xee}, 1<<20)) {
		t.Error("the device was changed")
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	up, err = Open(t.Context(), loopDevice(t, file), servers.Options{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	if err := up.Send(canceled, &servertest.LargeSource{Length: 1 << 20}, &servertest.Log{}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("canceled: %v", err)
	}
}
