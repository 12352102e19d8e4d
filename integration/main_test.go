// Package integration drives the built program against real tools.
package integration

import (
	"flag"
	"testing"

	"flatimg/integration/rig"
)

func TestMain(m *testing.M) {
	// The parallel tests are those of servers, which wait more than they work.
	// An argument says it otherwise.
	flag.Set("test.parallel", "4")
	rig.Main(m)
}
