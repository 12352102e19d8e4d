package area

import (
	"fmt"
	"os"

	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
)

// sendLog is the log of one upload.
type sendLog struct{ meter *progress.Meter }

var _ = (servers.Log)(sendLog{})

func (l sendLog) Sent(n int64) { l.meter.Add(n) }
func (l sendLog) Kept(n int64) { l.meter.Add(n) }
func (l sendLog) Keep(any)     {}

func (l sendLog) Say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "flatimg: "+format+"\n", args...)
}
