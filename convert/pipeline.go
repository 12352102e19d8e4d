package convert

import (
	"context"
	"iter"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// ordered does jobs on all processors and hands their results to done, from one
// goroutine and in the order of the jobs. Each worker has a function of its own
// from newWork. At most some jobs for each processor are under way, so that
// memory is bounded when done is slow. The first error ends all.
func ordered[J, R any](ctx context.Context, jobs iter.Seq[J], newWork func() (func(J) (R, error), error), done func(R) error) error {
	type task struct {
		job    J
		result chan R // of one
	}
	workers := runtime.GOMAXPROCS(0)
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan task)
	order := make(chan chan R, 4*workers)
	group.Go(func() error {
		defer close(queue)
		defer close(order)
		for job := range jobs {
			t := task{job, make(chan R, 1)}
			select {
			case order <- t.result:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case queue <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		group.Go(func() error {
			work, err := newWork()
			if err != nil {
				return err
			}
			for t := range queue {
				result, err := work(t.job)
				if err != nil {
					return err
				}
				t.result <- result
			}
			return nil
		})
	}
	group.Go(func() error {
		for result := range order {
			select {
			case r := <-result:
				if err := done(r); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return group.Wait()
}
