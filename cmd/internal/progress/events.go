package progress

import (
	"encoding/json"
	"io"
	"sync"
	"time"
)

// Events writes objects of JSON, one a line, each with the name of its kind as
// "event". Safe for concurrent use.
type Events struct {
	mu sync.Mutex
	w  io.Writer
}

// NewEvents returns events that are written to w.
func NewEvents(w io.Writer) *Events { return &Events{w: w} }

// Write writes an event, whose fields are those of an object; job says what it
// is about: the path of an image.
func (e *Events) Write(event, job string, fields any) {
	line, err := json.Marshal(fields)
	if err != nil {
		panic("progress: internal error: " + err.Error())
	}
	head, err := json.Marshal(struct {
		Event string `json:"event"`
		Job   string `json:"job,omitempty"`
	}{event, job})
	if err != nil {
		panic("progress: internal error: " + err.Error())
	}
	// One object of both: {head, fields}.
	if len(line) > len("{}") {
		head = append(append(head[:len(head)-1], ','), line[1:]...)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.w.Write(append(head, '\n'))
}

// Meter returns a meter for a job that writes events.
func (e *Events) Meter(job string) *Meter {
	return &Meter{
		every: eventEvery,
		newShower: func(stage string, total int64) shower {
			e.Write("stage", job, stageFields{stage, total})
			return &eventShower{e, job, stage, total, time.Now()}
		},
		say: func(text string) {
			e.Write("message", job, struct {
				Text string `json:"text"`
			}{text})
		},
	}
}

type stageFields struct {
	Stage string `json:"stage"`
	Total int64  `json:"bytes_total"` // 0: not known
}

// eventShower shows a stage as events.
type eventShower struct {
	events *Events
	job    string
	stage  string
	total  int64
	begin  time.Time
}

func (s *eventShower) show(done, skipped int64) {
	rate := perSecond(done-skipped, s.begin)
	fields := struct {
		stageFields
		Done    int64    `json:"bytes_done"`
		Rate    int64    `json:"bytes_per_second"`
		Seconds float64  `json:"seconds"`
		Left    *float64 `json:"seconds_left,omitempty"`
	}{stageFields{s.stage, s.total}, done, rate, time.Since(s.begin).Seconds(), nil}
	if s.total > 0 && rate > 0 {
		left := float64(max(0, s.total-done)) / float64(rate)
		fields.Left = &left
	}
	s.events.Write("progress", s.job, fields)
}

func (s *eventShower) finish() {}
