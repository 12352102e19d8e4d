package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"flatimg/fs/mountpoint"
)

// readAhead in bytes. The kernel's 128 KiB for FUSE make requests of that size;
// this makes them as large as they can be, and lets several be on their way.
const readAhead = 4 * maxRead

// raiseReadAhead makes the kernel read further ahead of sequential readers. It
// works for root only, and nothing but speed depends on it.
func raiseReadAhead(m *mountpoint.Mount) {
	path := filepath.Join("/sys/class/bdi", fmt.Sprintf("%d:%d", m.Major, m.Minor), "read_ahead_kb")
	os.WriteFile(path, []byte(strconv.Itoa(readAhead>>10)), 0)
}
