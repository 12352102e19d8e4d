// Package progress tells people how far a long job is: a bar on a terminal, a
// line each few seconds anywhere else.
//
// A [Meter] goes with one job, which has stages: [Meter.Start] begins one and
// ends the one before, [Meter.Add] counts bytes, [Meter.Stop] ends the last.
// Only Add is called often; it is one atomic addition, and whoever draws reads
// the sum a few times a second.
package progress

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/term"

	"flatimg/cmd/internal/cli"
)

const (
	// drawEvery is often enough for a bar to look smooth.
	drawEvery = 100 * time.Millisecond
	// lineEvery is rare enough for the log of a job of hours.
	lineEvery = 5 * time.Second
)

// Meter shows how far a job is. A nil Meter shows nothing. Start and Stop are
// called by one goroutine, Add by any number of them.
type Meter struct {
	w   io.Writer
	tty bool

	done atomic.Int64  // bytes of this stage
	end  chan struct{} // closed to end the stage; nil between stages
	idle chan struct{} // closed when the stage's goroutine has ended
}

// New returns a meter that writes to f.
func New(f *os.File) *Meter {
	return &Meter{w: f, tty: term.IsTerminal(int(f.Fd()))}
}

// Start begins a stage of total bytes; 0: nobody knows how many.
func (m *Meter) Start(stage string, total int64) {
	if m == nil {
		return
	}
	m.Stop()
	m.done.Store(0)
	m.end, m.idle = make(chan struct{}), make(chan struct{})
	go m.run(stage, total, m.end, m.idle)
}

// Add counts n more bytes of the stage.
func (m *Meter) Add(n int64) {
	if m != nil {
		m.done.Add(n)
	}
}

// Stop ends the stage. After it nothing is written until the next Start.
func (m *Meter) Stop() {
	if m == nil || m.end == nil {
		return
	}
	close(m.end)
	<-m.idle
	m.end = nil
}

// shower shows the state of one stage.
type shower interface {
	show(done int64)
	finish()
}

func (m *Meter) run(stage string, total int64, end, idle chan struct{}) {
	defer close(idle)
	every := lineEvery
	var s shower = &lines{w: m.w, stage: stage, total: total, begin: time.Now()}
	if m.tty {
		every = drawEvery
		s = newBar(m.w, stage, total)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.show(m.done.Load())
		case <-end:
			s.finish()
			return
		}
	}
}

// lines shows a stage as lines of text.
type lines struct {
	w     io.Writer
	stage string
	total int64
	begin time.Time
}

func (l *lines) show(done int64) {
	rate := cli.FormatSize(int64(float64(done) / time.Since(l.begin).Seconds()))
	switch {
	case done == 0:
		fmt.Fprintf(l.w, "%s\n", l.stage)
	case l.total <= 0:
		fmt.Fprintf(l.w, "%s: %s, %s/s\n", l.stage, cli.FormatSize(done), rate)
	default:
		percent := min(100, int(float64(done)/float64(l.total)*100))
		fmt.Fprintf(l.w, "%s: %s of %s (%d%%), %s/s\n", l.stage, cli.FormatSize(done), cli.FormatSize(l.total), percent, rate)
	}
}

// finish writes nothing: what comes next says that the stage has ended.
func (l *lines) finish() {}
