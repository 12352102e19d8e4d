package area

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
	"flatimg/convert"
)

// hashStep is the number of bytes that are read and hashed at a time.
const hashStep = 1 << 20

// zeros are hashed for holes.
var zeros [hashStep]byte

// hashFile returns the SHA-256 of src; holes are not read.
func hashFile(ctx context.Context, src servers.Source) ([]byte, error) {
	h := sha256.New()
	buf := make([]byte, hashStep)
	for off := int64(0); off < src.Size(); {
		start, end, err := src.NextData(off)
		if err != nil {
			return nil, err
		}
		if err := hashZeros(ctx, h, start-off); err != nil {
			return nil, err
		}
		for off = start; off < end; {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n := min(hashStep, end-off)
			if k, err := src.ReadAt(buf[:n], off); int64(k) < n {
				return nil, fmt.Errorf("read to verify, at offset %#x: %w", off, err)
			}
			h.Write(buf[:n])
			off += n
		}
	}
	return h.Sum(nil), nil
}

func hashZeros(ctx context.Context, h hash.Hash, n int64) error {
	for ; n > 0; n -= hashStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		h.Write(zeros[:min(hashStep, n)])
	}
	return nil
}

// hashTarget returns the SHA-256 of what the target reads as.
func hashTarget(ctx context.Context, t convert.Target, meter *progress.Meter) ([]byte, error) {
	h := sha256.New()
	buf := make([]byte, hashStep)
	for off := int64(0); off < t.Size(); {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n := min(hashStep, t.Size()-off)
		if k, err := convert.ReadAt(t, buf[:n], off); int64(k) < n {
			return nil, fmt.Errorf("read the view at offset %#x: %w", off, err)
		}
		h.Write(buf[:n])
		meter.Add(n)
		off += n
	}
	return h.Sum(nil), nil
}

// verifyFile compares a file with the target that it was filled from, each read
// from the beginning, and returns their SHA-256.
func verifyFile(ctx context.Context, src servers.Source, t convert.Target, meter *progress.Meter) ([]byte, error) {
	meter.Start("verifying", t.Size())
	group, ctx := errgroup.WithContext(ctx)
	var want, got []byte
	group.Go(func() (err error) {
		want, err = hashTarget(ctx, t, meter)
		return err
	})
	group.Go(func() (err error) {
		got, err = hashFile(ctx, src)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if !bytes.Equal(want, got) {
		return nil, fmt.Errorf("the file differs from the view: SHA-256 is %x, must be %x", got, want)
	}
	return got, nil
}

// verifySent compares what a server has received with want, its SHA-256, and
// returns who has computed it there: the server if it can, else this program,
// by reading back.
func verifySent(ctx context.Context, up servers.Upload, want []byte, size int64, meter *progress.Meter) (string, error) {
	if v, ok := up.(servers.Verifier); ok {
		meter.Start("verifying on the server", 0)
		by, err := v.Verify(ctx, want)
		if !errors.Is(err, errors.ErrUnsupported) {
			return by, err
		}
	}
	r, ok := up.(servers.ReadBacker)
	if !ok {
		return "", fmt.Errorf("%s: %w: what arrived can't be verified", up, errors.ErrUnsupported)
	}
	meter.Start("reading back", size)
	h := sha256.New()
	if err := r.ReadBack(ctx, io.MultiWriter(h, counter{meter}), 0, size); err != nil {
		return "", err
	}
	if got := h.Sum(nil); !bytes.Equal(want, got) {
		return "", servers.Differs(up.String(), got, "read back", want)
	}
	return "read back", nil
}

// counter counts what is written to it.
type counter struct{ *progress.Meter }

func (c counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}
