package area

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/convert"
)

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

// verifySent compares what a server has received with src, and returns who has
// looked at what: the server at its own checksum, or, with readBack, this
// program at what it read back. It returns an empty string when the server has
// no checksum. sum is the SHA-256 of src; nil: it was not computed.
func verifySent(ctx context.Context, up servers.Upload, src servers.Source, sum []byte, readBack bool, meter *progress.Meter) (string, error) {
	r, canRead := up.(servers.ReadBacker)
	if readBack && canRead {
		return "read back", compareBack(ctx, up, r, src, sum, meter)
	}
	v, ok := up.(servers.Verifier)
	if !ok && !readBack {
		return "", nil
	}
	err := fmt.Errorf("%s: %w: what arrived can't be verified", up, errors.ErrUnsupported)
	if ok {
		meter.Start("verifying on the server", 0)
		var by string
		if by, err = v.Verify(ctx, sum); err == nil {
			return by, nil
		}
	}
	if errors.Is(err, errors.ErrUnsupported) && !readBack {
		return "", nil
	}
	return "", err
}

// compareBack reads back what was sent. With a checksum all of it is read; else
// what is data in src, since the holes of the file were never written.
func compareBack(ctx context.Context, up servers.Upload, r servers.ReadBacker, src servers.Source, sum []byte, meter *progress.Meter) error {
	if sum != nil {
		meter.Start("reading back", src.Size())
		h := sha256.New()
		if err := r.ReadBack(ctx, io.MultiWriter(h, counter{meter}), 0, src.Size()); err != nil {
			return err
		}
		if got := h.Sum(nil); !bytes.Equal(sum, got) {
			return transfer.Differs(up.String(), got, "read back", sum)
		}
		return nil
	}
	meter.Start("reading back", 0)
	return eachRun(src, func(start, end int64) error {
		w := io.NewOffsetWriter(comparer{src}, start)
		err := r.ReadBack(ctx, io.MultiWriter(w, counter{meter}), start, end-start)
		if errors.Is(err, errContent) {
			err = &cli.Error{
				Err:  fmt.Errorf("%s: %w: %w", up, transfer.ErrDiffers, err),
				Hint: "nothing was published; try again, and suspect the server's disk or memory",
				Code: cli.ExitServer,
			}
		}
		return err
	})
}

// counter counts what is written to it.
type counter struct{ *progress.Meter }

func (c counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}
