package progress

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLines(t *testing.T) {
	begin := time.Now().Add(-2 * time.Second)
	for _, c := range []struct {
		total, done int64
		want        string
	}{
		{100 << 20, 0, "copying\n"},
		{100 << 20, 50 << 20, "copying: 50 MiB of 100 MiB (50%), "},
		{0, 50 << 20, "copying: 50 MiB, "},
		{1, 50 << 20, "copying: 50 MiB of 1 B (100%), "},
	} {
		var b bytes.Buffer
		l := &lines{w: &b, stage: "copying", total: c.total, begin: begin}
		l.show(c.done, 0)
		if got := b.String(); !strings.HasPrefix(got, c.want) {
			t.Errorf("%d of %d: %q, want %q", c.done, c.total, got, c.want)
		}
	}
}

// toldShower tells when it has shown something, to who waits for that.
type toldShower struct {
	shower
	shown chan struct{}
}

func (s toldShower) show(done, skipped int64) {
	s.shower.show(done, skipped)
	select {
	case s.shown <- struct{}{}:
	default:
	}
}

// await waits for what tells that something was shown.
func await(t *testing.T, shown <-chan struct{}) {
	t.Helper()
	select {
	case <-shown:
	case <-time.After(time.Minute):
		t.Fatal("nothing was shown")
	}
}

// TestBar draws on what is taken for a terminal, from many goroutines.
func TestBar(t *testing.T) {
	var b bytes.Buffer // read after Stop only
	shown := make(chan struct{})
	m := newMeter(&b, drawEvery, func(stage string, total int64) shower { return toldShower{newBar(&b, stage, total), shown} })
	m.Start("copying", 2000)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 100 {
				m.Add(1)
			}
		})
	}
	wg.Wait()
	await(t, shown) // what was added last may have come after it had begun
	await(t, shown)
	m.Start("verifying", 0)
	await(t, shown)
	m.Stop()
	m.Stop()
	for _, want := range []string{"copying", "50%", "verifying"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in %q", want, b.String())
		}
	}
}

func TestNilMeter(t *testing.T) {
	var m *Meter
	m.Start("copying", 1)
	m.Add(1)
	m.Skip(1)
	m.Say("hello")
	m.Stop()
}

// TestEvents reads what a program would.
func TestEvents(t *testing.T) {
	out, in := io.Pipe()
	m := NewEvents(in).Meter("web.qcow2")
	m.every = time.Millisecond
	all := make(chan struct{}) // closed when progress tells of all that was done
	ended := make(chan map[string]bool)
	go func() {
		seen := map[string]bool{}
		for dec := json.NewDecoder(out); ; {
			var e struct {
				Event, Job, Stage, Text string
				Done                    int64   `json:"bytes_done"`
				Total                   int64   `json:"bytes_total"`
				Left                    float64 `json:"seconds_left"`
			}
			err := dec.Decode(&e)
			if err != nil {
				out.CloseWithError(err)
				if err != io.EOF {
					t.Error(err)
				}
				ended <- seen
				return
			}
			if e.Job != "web.qcow2" || e.Event != "message" && (e.Stage != "sending" || e.Total != 1000) || e.Event == "message" && e.Text != "the line broke" {
				t.Errorf("%+v", e)
			}
			if e.Event == "progress" {
				if e.Done > 500 || e.Done == 500 && e.Left <= 0 {
					t.Errorf("%+v", e)
				}
				if e.Done < 500 {
					continue // it came between Skip and Add
				}
				if !seen["progress"] {
					close(all)
				}
			}
			seen[e.Event] = true
		}
	}()
	m.Start("sending", 1000)
	m.Skip(300)
	m.Add(200)
	await(t, all)
	m.Say("the line broke")
	m.Stop()
	in.Close()
	if seen := <-ended; len(seen) != 3 {
		t.Errorf("events: %v", seen)
	}
}

func TestNotATerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := New(f)
	m.Start("copying", 10)
	m.Add(5)
	m.Stop()
	if fi, err := f.Stat(); err != nil || fi.Size() != 0 {
		t.Errorf("a short stage wrote %d bytes, %v", fi.Size(), err)
	}
}

// TestEventsOfJobs: those of several jobs are a line each, whole.
func TestEventsOfJobs(t *testing.T) {
	var b bytes.Buffer
	e := NewEvents(&b)
	var wg sync.WaitGroup
	for _, job := range []string{"a", "b", ""} {
		wg.Go(func() {
			m := e.Meter(job)
			for range 100 {
				m.Start("copying", 0)
				m.Say("hello")
			}
			m.Stop()
			e.Write("report", job, struct{}{})
		})
	}
	wg.Wait()
	count := map[string]int{}
	for line := range bytes.Lines(b.Bytes()) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		job, hasJob := fields["job"].(string)
		if hasJob != (job != "") {
			t.Errorf("%s", line)
		}
		count[job+" "+fields["event"].(string)]++
	}
	for _, job := range []string{"a", "b", ""} {
		if count[job+" stage"] != 100 || count[job+" message"] != 100 || count[job+" report"] != 1 {
			t.Errorf("%v", count)
		}
	}
}

// TestTakenBack: what has to be sent again makes no negative rate.
func TestTakenBack(t *testing.T) {
	if r := perSecond(-5, time.Now().Add(-time.Second)); r != 0 {
		t.Errorf("%d bytes a second", r)
	}
}
