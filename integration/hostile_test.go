package integration

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// hostile is a qcow2 image of version 3, written field by field. Its clusters
// have 64 KiB: the header, then an L1 table, an L2 table, a cluster of data.
type hostile []byte

const (
	hostileBits    = 16
	hostileCluster = 1 << hostileBits
)

func newHostile() hostile {
	h := make(hostile, 4*hostileCluster)
	copy(h, "QFI\xfb")
	h.u32(4, 3)
	h.u32(20, hostileBits)
	h.u64(24, 16<<20) // size
	h.u32(36, 1)      // l1_size
	h.u64(40, hostileCluster)
	h.u32(96, 4)
	h.u32(100, 104)
	h.u64(hostileCluster, 2*hostileCluster)
	h.u64(2*hostileCluster, 3*hostileCluster)
	copy(h[3*hostileCluster:], "the guest's own bytes")
	return h
}

func (h hostile) u32(off int, v uint32) { binary.BigEndian.PutUint32(h[off:], v) }
func (h hostile) u64(off int, v uint64) { binary.BigEndian.PutUint64(h[off:], v) }

// backing names a backing file and its format.
func (h hostile) backing(name, format string) {
	h.u32(104, 0xe2792aca)
	h.u32(108, uint32(len(format)))
	copy(h[112:], format)
	h.u64(8, 1024)
	h.u32(16, uint32(len(name)))
	copy(h[1024:], name)
}

// dataFile names an external data file.
func (h hostile) dataFile(name string) {
	h.u64(72, 1<<2)
	h.u32(104, 0x44415441)
	h.u32(108, uint32(len(name)))
	copy(h[112:], name)
}

// hostileLimits are what any image may cost.
const (
	hostileMemory = 64 << 20        // bytes above what a small honest image takes
	hostileTime   = 3 * time.Second // of a processor; the worst needs a thirtieth
)

// TestHostileImages opens images that were made to do harm. Each is answered
// within limits of time and memory, and none shows a byte of another file.
func TestHostileImages(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte(strings.Repeat("secret of the host ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "honest.raw"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	const source, refused = 3, 4 // exit codes
	for _, c := range []struct {
		name   string
		change func(h *hostile)
		code   int
		says   string
	}{
		{"honest", func(h *hostile) {}, 0, ""},
		// CVE-2024-32498, CVE-2024-4467: a file of the host as backing or data file.
		{"backing file by absolute path", func(h *hostile) { h.backing(outside, "raw") }, refused, "--allow-dir"},
		{"backing file by relative path", func(h *hostile) { h.backing("../../../../../../../../etc/passwd", "raw") }, refused, "--allow-dir"},
		{"backing file by symbolic link", func(h *hostile) { h.backing("link", "raw") }, refused, "--allow-dir"},
		{"data file by absolute path", func(h *hostile) { h.dataFile(outside) }, refused, "--allow-dir"},
		{"data file by symbolic link", func(h *hostile) { h.dataFile("link") }, refused, "--allow-dir"},
		{"data file as JSON", func(h *hostile) { h.dataFile(`json:{"driver":"file","filename":"` + outside + `"}`) }, source, "protocol"},
		{"backing file as JSON", func(h *hostile) { h.backing(`json:{"driver":"file","filename":"`+outside+`"}`, "raw") }, source, "protocol"},
		{"backing file by protocol", func(h *hostile) { h.backing("nbd://127.0.0.1/x", "raw") }, source, "protocol"},
		{"backing file by file protocol", func(h *hostile) { h.backing("file:"+outside, "raw") }, source, "protocol"},
		{"backing file with a zero byte", func(h *hostile) { h.backing("base\x00.raw", "raw") }, source, "does not exist"},
		{"backing file is a FIFO", func(h *hostile) { h.backing("fifo", "raw") }, source, "regular file"},
		{"backing file is a directory", func(h *hostile) { h.backing(".", "raw") }, source, "directory"},
		{"backing file is a device", func(h *hostile) { h.backing("/dev/zero", "raw") }, refused, "--allow-dir"},
		{"backing file is the process", func(h *hostile) { h.backing("/proc/self/mem", "raw") }, refused, "--allow-dir"},
		{"backing format unknown", func(h *hostile) { h.backing("honest.raw", "evil") }, source, "not supported"},
		// CVE-2014-0142 to 0148: sizes and counts.
		{"cluster_bits 0", func(h *hostile) { h.u32(20, 0) }, source, "cluster_bits"},
		{"cluster_bits 63", func(h *hostile) { h.u32(20, 63) }, source, "cluster_bits"},
		{"L1 of 2^32-1 entries", func(h *hostile) { h.u32(36, 1<<32-1) }, source, "L1 table"},
		{"L1 of 0 entries", func(h *hostile) { h.u32(36, 0) }, source, "too small"},
		{"size of 2^63-512", func(h *hostile) { h.u64(24, 1<<63-512) }, source, "too small"},
		{"size of 2^64-512", func(h *hostile) { h.u64(24, 1<<64-512) }, source, "virtual size"},
		{"65537 snapshots", func(h *hostile) { h.u32(60, 65537); h.u64(64, 3*hostileCluster) }, source, "snapshots"},
		{"65536 snapshots in no space", func(h *hostile) { h.u32(60, 65536); h.u64(64, 3*hostileCluster) }, source, "truncated"},
		{"extension of 4 GiB", func(h *hostile) { h.u32(104, 1); h.u32(108, 1<<32-1) }, source, "extension"},
		{"L1 within the header", func(h *hostile) { h.u64(40, 0) }, source, "truncated"},
		{"L1 of 32 MiB that names one L2 table", func(h *hostile) {
			const entries = 4 << 20
			h.u32(36, entries)
			h.u64(24, entries<<29)
			for len(*h) < hostileCluster+entries*8 {
				*h = append(*h, make([]byte, hostileCluster)...)
			}
			for i := range entries {
				h.u64(hostileCluster+i*8, 2*hostileCluster)
			}
		}, source, "overlap"},
		{"clusters of 512 bytes, all apart", func(h *hostile) {
			*h = manyPieces()
		}, 0, ""},
		{"a compressed cluster of nothing", func(h *hostile) { h.u64(2*hostileCluster, 1<<62|3*hostileCluster) }, 0, ""},
		{"data in the header", func(h *hostile) { h.u64(2*hostileCluster, 0x200) }, 0, ""},
		// CVE-2015-5163, CVE-2008-2004: a guest that writes a header to its disk.
		{"a recorded raw base that looks like qcow2", func(h *hostile) {
			guest := newHostile()
			guest.backing(outside, "raw")
			if err := os.WriteFile(filepath.Join(dir, "guest.raw"), guest, 0o600); err != nil {
				t.Fatal(err)
			}
			h.backing("guest.raw", "raw")
		}, 0, ""},
		{"itself as backing file", func(h *hostile) { h.backing("hostile.qcow2", "qcow2") }, source, "loops"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, "hostile.qcow2")
			h := newHostile()
			c.change(&h)
			if err := os.WriteFile(path, h, 0o600); err != nil {
				t.Fatal(err)
			}
			base := cost(t, 0, "", "version")
			info := cost(t, c.code, c.says, "info", path)
			for _, got := range []spent{info, cost(t, -1, "", "map", "--max-length", "16M", path)} {
				if got.memory > base.memory+hostileMemory {
					t.Errorf("takes %d MiB, %d MiB more than nothing", got.memory>>20, (got.memory-base.memory)>>20)
				}
				// The race detector, with which tests are short, is slow.
				if got.time > hostileTime && !testing.Short() {
					t.Errorf("takes %v", got.time)
				}
			}
			out := filepath.Join(dir, "out.raw")
			defer os.Remove(out)
			if c.code != 0 {
				rig.Flatimg(t, "export", "--quiet", path, out)
				if _, err := os.Stat(out); err == nil {
					t.Error("a refused image was exported")
				}
			}
		})
	}
}

// manyPieces is an image of clusters of 512 bytes, of which every second one
// holds data: as many pieces as a map can have.
func manyPieces() hostile {
	const (
		cluster = 512
		entries = cluster / 8
		tables  = 4096 // 128 MiB of disk
	)
	h := make(hostile, (1+tables/entries+tables+1)*cluster)
	copy(h, newHostile()[:cluster])
	h.u32(20, 9)
	h.u64(24, tables*entries*cluster)
	h.u32(36, tables)
	h.u64(40, cluster)
	first := cluster + tables*8
	for i := range tables {
		table := first + i*cluster
		h.u64(cluster+i*8, uint64(table))
		for j := 0; j < entries; j += 2 {
			h.u64(table+j*8, uint64(first+tables*cluster))
		}
	}
	return h
}

// spent is what a run of the program took.
type spent struct {
	memory int64         // peak resident, in bytes
	time   time.Duration // of processors, which other programs do not lengthen
}

// cost runs the program. code is the exit code that it must have, -1 for any;
// says must be on its standard error.
func cost(t *testing.T, code int, says string, args ...string) spent {
	t.Helper()
	cmd := rig.Command(rig.Binary(t), args...)
	r := rig.RunCommand(t, cmd)
	if code >= 0 && r.Code != code || r.Code == 2 {
		t.Errorf("%s: exit code %d, want %d: %s", strings.Join(args, " "), r.Code, code, r.Stderr)
	}
	if !strings.Contains(r.Stderr, says) {
		t.Errorf("%s does not say %q: %s", strings.Join(args, " "), says, r.Stderr)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal(fmt.Errorf("no resource usage"))
	}
	took := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return spent{memory: usage.Maxrss << 10, time: took}
}
