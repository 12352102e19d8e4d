// Package integration drives the built program against real tools.
package integration

import (
	"testing"

	"flatimg/integration/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }
