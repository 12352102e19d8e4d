package glance

import (
	"testing"

	"flatimg/integration/rig"
)

// TestMain ends the servers that tests share.
func TestMain(m *testing.M) { rig.Main(m) }
