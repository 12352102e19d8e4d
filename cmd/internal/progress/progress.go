// Package progress tells people how far a long job is: a bar on a terminal, a
// line each few seconds anywhere else, an object of JSON for programs.
//
// A [Meter] goes with one job, which has stages: [Meter.Start] begins one and
// ends the one before, [Meter.Add] counts bytes, [Meter.Stop] ends the last.
// Only Add is called often; it is one atomic addition, and whoever draws reads
// the sum a few times a second.
package progress

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

const (
	// drawEvery is often enough for a bar to look smooth.
	drawEvery = 100 * time.Millisecond
	// lineEvery is rare enough for the log of a job of hours.
	lineEvery = 5 * time.Second
	// eventEvery is how often programs are told.
	eventEvery = time.Second
)

// Meter shows how far a job is. A nil Meter shows nothing. Start and Stop are
// called by one goroutine, the other methods by any number of them.
type Meter struct {
	every time.Duration
	// newShower returns who shows a stage of total bytes.
	newShower func(stage string, total int64) shower
	// say shows a sentence.
	say func(text string)

	done    atomic.Int64 // bytes of this stage
	skipped atomic.Int64 // those of them that cost no time

	mu   sync.Mutex    // protects what is on the screen, and the fields below
	now  shower        // nil between stages
	end  chan struct{} // closed to end the stage
	idle chan struct{} // closed when the stage's goroutine has ended
}

// New returns a meter that writes to f, for people.
func New(f *os.File) *Meter {
	if term.IsTerminal(int(f.Fd())) {
		return newMeter(f, drawEvery, func(stage string, total int64) shower { return newBar(f, stage, total) })
	}
	return newMeter(f, lineEvery, func(stage string, total int64) shower { return newLines(f, stage, total) })
}

// NewFor returns a meter that writes lines to f for one of several jobs, which
// have no room for a bar each.
func NewFor(f *os.File, job string) *Meter {
	m := newMeter(f, lineEvery, func(stage string, total int64) shower { return newLines(f, job+": "+stage, total) })
	m.say = func(text string) { io.WriteString(f, "flatimg: "+job+": "+text+"\n") }
	return m
}

func newMeter(w io.Writer, every time.Duration, newShower func(stage string, total int64) shower) *Meter {
	return &Meter{every: every, newShower: newShower, say: func(text string) { io.WriteString(w, "flatimg: "+text+"\n") }}
}

// Start begins a stage of total bytes; 0: nobody knows how many.
func (m *Meter) Start(stage string, total int64) {
	if m == nil {
		return
	}
	m.Stop()
	m.done.Store(0)
	m.skipped.Store(0)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.newShower(stage, total)
	m.end, m.idle = make(chan struct{}), make(chan struct{})
	go m.run(m.now, m.end, m.idle)
}

// Add counts n more bytes of the stage.
func (m *Meter) Add(n int64) {
	if m != nil {
		m.done.Add(n)
	}
}

// Skip counts n more bytes that cost no time: they are no part of the rate.
func (m *Meter) Skip(n int64) {
	if m != nil {
		m.skipped.Add(n)
		m.done.Add(n)
	}
}

// Say shows a sentence that is not part of a stage.
func (m *Meter) Say(text string) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.now != nil {
		m.now.finish() // a bar makes room, and is drawn again below
	}
	m.say(text)
}

// Stop ends the stage. After it nothing is written until the next Start or Say.
func (m *Meter) Stop() {
	if m == nil {
		return
	}
	m.mu.Lock()
	if m.now == nil {
		m.mu.Unlock()
		return
	}
	close(m.end)
	m.now = nil
	idle := m.idle
	m.mu.Unlock()
	<-idle
}

// shower shows the state of one stage.
type shower interface {
	show(done, skipped int64)
	finish()
}

func (m *Meter) run(s shower, end, idle chan struct{}) {
	defer close(idle)
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			m.mu.Lock()
			if m.now == s {
				s.show(m.done.Load(), m.skipped.Load())
			}
			m.mu.Unlock()
		case <-end:
			m.mu.Lock()
			s.finish()
			m.mu.Unlock()
			return
		}
	}
}
