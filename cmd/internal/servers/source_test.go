package servers

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// fakeSource is a source of runs of data, each as long as it says.
type fakeSource struct {
	*bytes.Reader
	runs []chunk // in order
}

var _ = (Source)((*fakeSource)(nil))

// newSource returns a source of size bytes: data in the runs, zeros elsewhere.
func newSource(size int64, runs ...chunk) *fakeSource {
	b := make([]byte, size)
	for _, r := range runs {
		for i := range r.length {
			b[r.off+i] = byte((r.off+i)%251 + 1)
		}
	}
	return &fakeSource{bytes.NewReader(b), runs}
}

func (s *fakeSource) NextData(off int64) (start, end int64, err error) {
	for _, r := range s.runs {
		if off < r.off+r.length {
			return max(off, r.off), r.off + r.length, nil
		}
	}
	return s.Size(), s.Size(), nil
}

// fileSource returns a source of a file, all of it data.
func fileSource(t *testing.T, name string) *fakeSource {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeSource{bytes.NewReader(b), []chunk{{0, int64(len(b))}}}
}

func writeTestFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// testLog is a log that counts and keeps.
type testLog struct {
	sent, kept atomic.Int64

	mu    sync.Mutex
	state json.RawMessage
	said  []string
}

var _ = (Log)((*testLog)(nil))

func (l *testLog) Sent(n int64) { l.sent.Add(n) }
func (l *testLog) Kept(n int64) { l.kept.Add(n) }

func (l *testLog) Keep(state any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state, _ = json.Marshal(state)
}

func (l *testLog) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, fmt.Sprintf(format, args...))
}

// recorder remembers what was written where.
type recorder struct {
	mu     sync.Mutex
	chunks []chunk
	full   int64 // writes at or after it fail
}

var errFull = errors.New("full")

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full > 0 && off >= r.full {
		return 0, errFull
	}
	r.chunks = append(r.chunks, chunk{off, int64(len(p))})
	return len(p), nil
}

func TestSend(t *testing.T) {
	src := newSource(1000, chunk{10, 1}, chunk{100, 250}, chunk{500, 200}, chunk{999, 1})
	r := &recorder{}
	var arrived []int64
	log := &testLog{}
	s := sender{dst: r, workers: 1, chunk: 100, log: log, arrived: func(off int64) { arrived = append(arrived, off) }}
	if err := s.send(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	want := []chunk{{10, 1}, {100, 100}, {200, 100}, {300, 50}, {500, 100}, {600, 100}, {999, 1}}
	if !slices.Equal(r.chunks, want) {
		t.Errorf("written %v, want %v", r.chunks, want)
	}
	if sent := log.sent.Load(); sent != 452 {
		t.Errorf("%d bytes counted, want 452", sent)
	}
	if want := []int64{11, 200, 300, 350, 600, 700, 1000}; !slices.Equal(arrived, want) {
		t.Errorf("arrived %v, want %v", arrived, want)
	}
	if n, err := dataSize(src); n != 452 || err != nil {
		t.Errorf("data size %d, %v; want 452", n, err)
	}
	if n, err := dataBetween(src, 600, 2000); n != 101 || err != nil {
		t.Errorf("data to behind the end %d, %v; want 101", n, err)
	}
}

func TestSendFails(t *testing.T) {
	src := newSource(1<<20, chunk{0, 1 << 20})
	for _, workers := range []int{1, 7} {
		s := sender{dst: &recorder{full: 5000}, workers: workers, chunk: 100, log: &testLog{}}
		if err := s.send(t.Context(), src); !errors.Is(err, errFull) {
			t.Errorf("%d workers: %v, want %v", workers, err, errFull)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := sender{dst: &recorder{}, workers: 3, chunk: 100, log: &testLog{}}
	if err := s.send(ctx, src); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
