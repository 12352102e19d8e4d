package servers

import (
	"testing"
	"time"

	"flatimg/integration/rig"
)

// hangs is longer than what ends by itself takes on the busiest machine, and
// shorter than the minutes after which a line that stands still is given up.
const hangs = 45 * time.Second

// TestMain ends the servers that tests share.
func TestMain(m *testing.M) { rig.Main(m) }
