package servers

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
	src := newSource(8<<20+512, chunk{0, 100}, chunk{1 << 20, 1<<20 + 512}, chunk{6 << 20, 2<<20 + 512})
	for _, sector := range []string{"512", "4096"} {
		file := oldDisk(t, 9<<20+4096)
		device := loopDevice(t, file, "--sector-size="+sector)
		if _, err := Open(t.Context(), device, Options{}); cli.ExitCode(err) != cli.ExitExists {
			t.Errorf("without force: %v", err)
		}
		up, err := Open(t.Context(), "file://"+device, Options{Force: true})
		if err != nil {
			t.Fatal(err)
		}
		defer up.Close(false)
		if err := up.(Checker).Check(t.Context(), File{Size: 10 << 20}); cli.ExitCode(err) != cli.ExitNoSpace {
			t.Errorf("too large: %v", err)
		}
		log := &testLog{}
		if err := up.Send(t.Context(), src, log); err != nil {
			t.Fatal(err)
		}
		if sent := log.sent.Load(); sent != 3<<20+1124 {
			t.Errorf("%d bytes counted", sent)
		}
		checkReadBack(t, up.(ReadBacker), src)
		if err := errors.Join(up.Publish(t.Context()), up.Close(false)); err != nil {
			t.Error(err)
		}
		checkDiskFile(t, file, src)
		rest, _ := os.ReadFile(file)
		if rest = rest[src.Size():]; !bytes.Equal(rest, bytes.Repeat([]byte{0xee}, len(rest))) {
			t.Error("what is behind the source was changed")
		}
		if used := diskUsage(t, file); used > 6<<20 {
			t.Errorf("sectors of %s: it takes %d bytes: its holes are filled", sector, used)
		}
	}
}

// TestDeviceInUse has a device that is mounted, or read-only.
func TestDeviceInUse(t *testing.T) {
	file := oldDisk(t, 1<<20)
	device := loopDevice(t, file)
	f, err := openExclusive(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Open(t.Context(), device, Options{Force: true}); cli.ExitCode(err) != cli.ExitRefused {
		t.Errorf("in use: %v", err)
	}
	if _, err := Open(t.Context(), loopDevice(t, file, "--read-only"), Options{Force: true}); err == nil {
		t.Error("read-only: no error")
	}
}

// TestDeviceHuge sends 1 TiB of holes, which begin in the middle of a sector.
func TestDeviceHuge(t *testing.T) {
	file := filepath.Join(t.TempDir(), "disk")
	rig.Run(t, "truncate", "-s", "1T", file)
	src := teraSource()
	up, err := Open(t.Context(), loopDevice(t, file, "--sector-size=4096"), Options{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := up.Send(ctx, src, &testLog{}); err != nil {
		t.Error(err)
	}
	if used := diskUsage(t, file); used > 4<<20 {
		t.Errorf("it takes %d bytes", used)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, r := range src.runs {
		got, want := make([]byte, r.length), make([]byte, r.length)
		f.ReadAt(got, r.off)
		src.ReadAt(want, r.off)
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes at %#x differ", r.length, r.off)
		}
	}
}

// failingSource can't tell where it has data.
type failingSource struct{ *largeSource }

func (failingSource) NextData(int64) (start, end int64, err error) { return 0, 0, io.ErrNoProgress }

// TestDeviceSourceFails stops at once, with an error told once.
func TestDeviceSourceFails(t *testing.T) {
	file := oldDisk(t, 1<<20)
	up, err := Open(t.Context(), loopDevice(t, file), Options{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	if err := up.Send(t.Context(), failingSource{&largeSource{size: 1 << 20}}, &testLog{}); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
	up.Close(false)
	if got, _ := os.ReadFile(file); !bytes.Equal(got, bytes.Repeat([]byte{0xee}, 1<<20)) {
		t.Error("the device was changed")
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	up, err = Open(t.Context(), loopDevice(t, file), Options{Force: true})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close(false)
	if err := up.Send(canceled, &largeSource{size: 1 << 20}, &testLog{}); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("canceled: %v", err)
	}
}
