package progress

import (
	"fmt"
	"io"
	"time"

	"flatimg/cmd/internal/cli"
)

// lines shows a stage as lines of text.
type lines struct {
	w     io.Writer
	stage string
	total int64
	begin time.Time
}

func newLines(w io.Writer, stage string, total int64) *lines {
	return &lines{w: w, stage: stage, total: total, begin: time.Now()}
}

func (l *lines) show(done, skipped int64) {
	rate := perSecond(done-skipped, l.begin)
	switch {
	case done == 0:
		fmt.Fprintf(l.w, "%s\n", l.stage)
	case l.total <= 0:
		fmt.Fprintf(l.w, "%s: %s, %s/s\n", l.stage, cli.FormatSize(done), cli.FormatSize(rate))
	default:
		percent := min(100, int(float64(done)/float64(l.total)*100))
		fmt.Fprintf(l.w, "%s: %s of %s (%d%%), %s/s", l.stage, cli.FormatSize(done), cli.FormatSize(l.total), percent, cli.FormatSize(rate))
		if rate > 0 && done < l.total {
			left := time.Duration((l.total-done)/rate) * time.Second
			fmt.Fprintf(l.w, ", %v left", left)
		}
		fmt.Fprintln(l.w)
	}
}

// finish writes nothing: what comes next says that the stage has ended.
func (l *lines) finish() {}

// perSecond is the rate of bytes since begin. Their number can be negative for a
// while: what is sent again does not count twice.
func perSecond(bytes int64, begin time.Time) int64 {
	return int64(float64(max(bytes, 0)) / max(time.Since(begin).Seconds(), 1e-3))
}
