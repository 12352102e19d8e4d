package transfer

import (
	"context"
	"time"
)

// awaitLast is the longest time between two looks.
const awaitLast = 5 * time.Second

// Await looks again and again, for as long as limit, whether the server has done
// what it was asked for, and was not waited for: the answer of status 504 is that
// of a gateway that has lost its patience, not of the server behind it.
func Await(ctx context.Context, limit time.Duration, done func() (bool, error)) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := firstWait; ; pause = min(2*pause, awaitLast) {
		if ok, err := done(); ok || err != nil && !MayPass(err) {
			return ok, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, nil
		}
	}
}
