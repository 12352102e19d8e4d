package servertest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"flatimg/cmd/internal/servers"
)

// opener opens a destination.
type opener func(ctx context.Context, dest string, o servers.Options) (servers.Upload, error)

// Send sends src as the command does.
func Send(t *testing.T, ctx context.Context, open opener, dest string, o servers.Options, src servers.Source, log servers.Log) error {
	t.Helper()
	up, err := open(ctx, dest, o)
	if err != nil {
		return err
	}
	if c, ok := up.(servers.Checker); ok {
		if err := c.Check(ctx, servers.File{Format: "raw", Size: src.Size(), Data: src.Size(), VirtualSize: src.Size()}); err != nil {
			return errors.Join(err, up.Close(false))
		}
	}
	if err := up.Send(ctx, src, log); err != nil {
		return errors.Join(err, up.Close(true))
	}
	sum := sha256.Sum256(Content(t, src))
	if v, ok := up.(servers.Verifier); ok {
		if _, err := v.Verify(ctx, sum[:]); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			return errors.Join(err, up.Close(true))
		}
	}
	var back bytes.Buffer
	if err := up.(servers.ReadBacker).ReadBack(ctx, &back, 0, src.Size()); err != nil {
		return errors.Join(err, up.Close(true))
	}
	if !bytes.Equal(back.Bytes(), Content(t, src)) {
		t.Error("read back other bytes")
	}
	if err := up.Publish(ctx); err != nil {
		return errors.Join(err, up.Close(false))
	}
	return up.Close(false)
}

// CheckReadBack compares what was sent with the source.
func CheckReadBack(t *testing.T, up servers.ReadBacker, src *Source) {
	t.Helper()
	var got bytes.Buffer
	if err := up.ReadBack(t.Context(), &got, 0, src.Size()); err != nil || !bytes.Equal(got.Bytes(), Content(t, src)) {
		t.Errorf("what was read back differs: %v", err)
	}
}

// Fetch reads a whole file.
func Fetch(t *testing.T, d servers.Download, err error) ([]byte, error) {
	t.Helper()
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var got bytes.Buffer
	err = d.Read(t.Context(), &got, 0, -1)
	return got.Bytes(), err
}

// CheckStalls sends until some data has left, and calls stall, after which the
// server does not answer any more and ctx has ended: what is under way ends soon,
// and what is left over is told.
func CheckStalls(t *testing.T, ctx context.Context, up servers.Upload, stall context.CancelFunc) {
	t.Helper()
	begin := time.Now()
	if err := up.Send(ctx, MixedSource(), &InterruptingLog{Cancel: stall}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if took := time.Since(begin); took > Hangs {
		t.Errorf("ended after %v", took)
	}
	begin = time.Now()
	if err := up.Close(false); err == nil {
		t.Error("nothing is said of what is left over")
	}
	if took := time.Since(begin); took > Hangs {
		t.Errorf("closed after %v", took)
	}
}
