package progress

import (
	"io"

	"github.com/schollz/progressbar/v3"
)

// bar shows a stage as a bar, or as a spinner when its total is unknown.
type bar struct{ *progressbar.ProgressBar }

func newBar(w io.Writer, stage string, total int64) bar {
	if total <= 0 {
		total = -1
	}
	b := bar{progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(stage),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionShowCount(),
		progressbar.OptionClearOnFinish(),
		// Without it the bar draws from a goroutine of its own.
		progressbar.OptionSetSpinnerChangeInterval(0),
	)}
	b.RenderBlank() // its clock starts with the first drawing
	return b
}

// Errors of its methods are those of the terminal, which nobody can be told about.

func (b bar) show(done, _ int64) { b.Set64(done) }

func (b bar) finish() { b.Clear() }
