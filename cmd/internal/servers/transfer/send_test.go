package transfer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"flatimg/cmd/internal/servers/servertest"
)

// recorder remembers what was written where.
type recorder struct {
	mu     sync.Mutex
	chunks []Chunk
	full   int64 // writes at or after it fail
}

var errFull = errors.New("full")

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full > 0 && off >= r.full {
		return 0, errFull
	}
	r.chunks = append(r.chunks, Chunk{off, int64(len(p))})
	return len(p), nil
}

func TestSend(t *testing.T) {
	src := servertest.NewSource(1000, servertest.Data(10, 1), servertest.Data(100, 250), servertest.Data(500, 200), servertest.Data(999, 1))
	r := &recorder{}
	var arrived []int64
	log := &servertest.Log{}
	s := Sender{Dst: r, Workers: 1, Chunk: 100, Log: log, Arrived: func(off int64) { arrived = append(arrived, off) }}
	if err := s.Send(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	want := []Chunk{{10, 1}, {100, 100}, {200, 100}, {300, 50}, {500, 100}, {600, 100}, {999, 1}}
	if !slices.Equal(r.chunks, want) {
		t.Errorf("written %v, want %v", r.chunks, want)
	}
	if sent := log.SentBytes.Load(); sent != 452 {
		t.Errorf("%d bytes counted, want 452", sent)
	}
	if want := []int64{11, 200, 300, 350, 600, 700, 1000}; !slices.Equal(arrived, want) {
		t.Errorf("arrived %v, want %v", arrived, want)
	}
	if n, err := DataSize(src); n != 452 || err != nil {
		t.Errorf("data size %d, %v; want 452", n, err)
	}
	if n, err := DataBetween(src, 600, 2000); n != 101 || err != nil {
		t.Errorf("data to behind the end %d, %v; want 101", n, err)
	}
}

func TestSendFails(t *testing.T) {
	src := servertest.NewSource(1<<20, servertest.Data(0, 1<<20))
	for _, workers := range []int{1, 7} {
		s := Sender{Dst: &recorder{full: 5000}, Workers: workers, Chunk: 100, Log: &servertest.Log{}}
		if err := s.Send(t.Context(), src); !errors.Is(err, errFull) {
			t.Errorf("%d workers: %v, want %v", workers, err, errFull)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := Sender{Dst: &recorder{}, Workers: 3, Chunk: 100, Log: &servertest.Log{}}
	if err := s.Send(ctx, src); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
