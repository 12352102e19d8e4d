package area

import (
	"context"
	"fmt"
	"sync"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/schemes"
)

// Watcher is told how a batch goes; by several goroutines, one image by one.
type Watcher interface {
	// Begin returns the options for one image, with a meter of its own.
	Begin(o Options) Options
	// End is told how the export of an image ended.
	End(image string, r *Report, err error)
}

// ExportAll exports several images with the options o to the folder o.Dest,
// jobs of them at a time. The failure of one does not stop the others; the error
// counts them. When ctx ends, no further one begins.
func ExportAll(ctx context.Context, images []string, o Options, jobs int, w Watcher) error {
	if err := checkBatch(images, o); err != nil {
		return err
	}
	queue := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for range min(max(jobs, 1), len(images)) {
		wg.Go(func() {
			for image := range queue {
				one := o
				one.Image = image
				r, err := Export(ctx, w.Begin(one))
				w.End(image, r, err)
				if err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, image := range images {
		select {
		case queue <- image:
		case <-ctx.Done():
			w.End(image, nil, context.Cause(ctx))
		}
	}
	close(queue)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch len(failed) {
	case 0:
		return nil
	case len(images):
		return &cli.Error{Err: fmt.Errorf("all of %d images failed", len(images)), Code: cli.ExitCode(failed[0])}
	}
	return &cli.Error{Err: fmt.Errorf("%d of %d images failed", len(failed), len(images)), Code: cli.ExitPartial}
}

// checkBatch refuses what can't go well, before the first image.
func checkBatch(images []string, o Options) error {
	if !schemes.IsFolder(o.Dest) {
		return &cli.Error{
			Err:  fmt.Errorf("%s: not a folder, for %d images", o.Dest, len(images)),
			Hint: "of several images DEST is an existing folder, or a URL that ends with a slash",
			Code: cli.ExitUsage,
		}
	}
	if o.Since != "" {
		return cli.Usagef("--since names a layer of one image, not of %d", len(images))
	}
	spec, err := targetSpec(o.Format, "")
	if err != nil {
		return err
	}
	seen := make(map[string]string)
	for _, image := range images {
		name := targetName(image, o.Open.Snapshot, spec)
		if other, ok := seen[name]; ok {
			return cli.Usagef("%s and %s would both become %s in %s", other, image, name, o.Dest)
		}
		seen[name] = image
	}
	return nil
}
