package mountpoint

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	const text = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 22 0:41 / /mnt/my\040disk\134\011x ro,nosuid,nodev shared:2 master:1 - fuse.flatimg flat\040img ro,user_id=0
bad line
37 22 x:y / /x rw - tmpfs tmpfs rw
`
	want := []Mount{
		{Point: "/", Type: "ext4", Source: "/dev/vda", Major: 254},
		{Point: "/mnt/my disk\\\tx", Type: "fuse.flatimg", Source: "flat img", Minor: 41},
	}
	if got := parse(text); !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("36 22 0:41 / /mnt\\040 ro - fuse.flatimg a ro\n")
	f.Add("36 22 0:41 / \\9 ro - x \\04\n")
	f.Fuzz(func(t *testing.T, text string) { parse(text) })
}

// TestFind looks for /proc, which is always mounted, also through links.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	for link, target := range map[string]string{"a": "/proc", "b": "a", "loop": "loop"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/proc", "/proc/", filepath.Join(dir, "a"), filepath.Join(dir, "b")} {
		m, err := Find(path)
		if err != nil || m == nil || m.Point != "/proc" || m.IsOurs() {
			t.Errorf("Find(%s) = %+v, %v", path, m, err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing")} {
		if m, err := Find(path); m != nil || err != nil {
			t.Errorf("Find(%s) = %+v, %v, want none", path, m, err)
		}
	}
	if m, err := Find(filepath.Join(dir, "loop")); m != nil || err == nil {
		t.Errorf("a link to itself: %+v, %v", m, err)
	}
}
