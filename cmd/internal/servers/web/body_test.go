package web

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"flatimg/cmd/internal/servers/servertest"
)

func TestEachPiece(t *testing.T) {
	src := servertest.NewSource(1000, servertest.Data(10, 10), servertest.Data(25, 10), servertest.Data(50, 210), servertest.Data(900, 100))
	for _, c := range []struct {
		from, size, gap int64
		want            []Piece
	}{
		{0, 100, 5, []Piece{{10, 35}, {50, 150}, {150, 250}, {250, 260}, {900, 1000}}},
		{0, 1000, 20, []Piece{{10, 260}, {900, 1000}}},
		{30, 1000, 0, []Piece{{30, 35}, {50, 260}, {900, 1000}}},
		{0, 100, 1000, []Piece{{10, 110}, {110, 210}, {210, 310}, {310, 410}, {410, 510}, {510, 610}, {610, 710}, {710, 810}, {810, 910}, {910, 1000}}},
		{1000, 100, 5, nil},
	} {
		var got []Piece
		err := EachPiece(src, c.from, c.size, c.gap, func(p Piece) error {
			got = append(got, p)
			return nil
		})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("from %d, %d bytes, gaps of %d: %v, %v; want %v", c.from, c.size, c.gap, got, err, c.want)
		}
	}
}

func TestBody(t *testing.T) {
	src := servertest.NewSource(3<<20, servertest.Data(100, 1<<20), servertest.Data(2<<20+5, 7))
	log := &servertest.Log{}
	b := newBody(src, Piece{Start: 50, End: 3<<20 - 9}, log)
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, servertest.Content(t, src)[50:3<<20-9]) || !b.Complete() {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if log.SentBytes.Load() != 1<<20+7 {
		t.Errorf("%d bytes counted", log.SentBytes.Load())
	}
	if b.takeBack(); log.SentBytes.Load() != 0 {
		t.Errorf("%d bytes counted after all was taken back", log.SentBytes.Load())
	}
	if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("read after it was closed")
	}
}
