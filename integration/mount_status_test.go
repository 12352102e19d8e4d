package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"flatimg/integration/rig"
)

// TestMountTellsItsStatus reads what a mount tells about itself, in the file and in the
// log after a signal.
func TestMountTellsItsStatus(t *testing.T) {
	im := layered(t, t.TempDir(), "disk")
	m := rig.NewMount(t, "--verbose", "--format", "raw", "--format", "qcow2", im.Dir)
	rig.CompareContent(t, view(m.Point, im.Top, ".raw"), im.Want)

	s := statusOf(t, m.Point)
	if s.PID != m.PID || len(s.Views) != 2 || len(s.Errors) != 0 || s.Goroutines < 2 {
		t.Fatalf("%+v", s)
	}
	raw := s.Views[1] // by name
	if raw.Name != "disk.raw" || len(raw.Chain) != len(im.Paths) || raw.Chain[0].Format != "raw" || raw.Chain[3].Path != im.Top {
		t.Errorf("%+v", raw)
	}
	if raw.BytesRead != im.Size || raw.Reads < im.Size/(512<<10) || raw.Errors != 0 || raw.LastError != "" {
		t.Errorf("reads of %d bytes: %+v", im.Size, raw)
	}
	// 32 clusters are compressed, of which three are hidden.
	if raw.Map.Misses == 0 || raw.Map.Hits == 0 || raw.Map.Bytes == 0 || raw.Clusters.Misses != 29 || s.Cache.Clusters.Entries != 29 {
		t.Errorf("map %+v, clusters %+v, all %+v", raw.Map, raw.Clusters, s.Cache)
	}

	if err := syscall.Kill(m.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	var dumped mountStatus
	rig.Eventually(t, soon, "the log has the status", func() bool {
		text, _ := os.ReadFile(m.Log)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "{") {
				return json.Unmarshal([]byte(line), &dumped) == nil
			}
		}
		return false
	})
	if dumped.PID != m.PID || len(dumped.Views) != 2 || dumped.Views[1].BytesRead != im.Size {
		t.Errorf("dumped %+v", dumped)
	}
	text, _ := os.ReadFile(m.Log)
	if !strings.Contains(string(text), `level=DEBUG msg="opened an image" image=`+im.Top) {
		t.Errorf("--verbose does not tell that the image was opened:\n%s", text)
	}
}

// TestMountModes: with --allow-other the kernel checks the modes; without it
// only one user may enter, and nobody asks.
func TestMountModes(t *testing.T) {
	im := small(t, t.TempDir(), "disk", 1)
	options := func(point string) string {
		text, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, " "+point+" ") {
				return line
			}
		}
		return ""
	}
	own, shared := rig.Mount(t, im.Dir), rig.Mount(t, "--allow-other", im.Dir)
	if line := options(own); strings.Contains(line, "default_permissions") || strings.Contains(line, "allow_other") {
		t.Error(line)
	}
	if line := options(shared); !strings.Contains(line, "default_permissions") || !strings.Contains(line, "allow_other") {
		t.Error(line)
	}
	rig.NeedRoot(t)
	rig.Need(t, "setpriv")
	// Its folder must let others pass.
	if err := os.Chmod(filepath.Dir(shared), 0o755); err != nil {
		t.Fatal(err)
	}
	as := []string{"--reuid=65534", "--regid=65534", "--clear-groups", "cmp", "-n", "4096"}
	rig.Run(t, "setpriv", append(as, view(shared, im.Top, ".raw"), view(shared, im.Top, ".raw"))...)
	rig.Run(t, "setpriv", append(as[:3:3], "sh", "-c", `! test -e "$1" && ! test -w "$2"`, "sh", view(own, im.Top, ".raw"), view(shared, im.Top, ".raw"))...)
}
