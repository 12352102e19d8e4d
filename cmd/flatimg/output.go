package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/area"
	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/progress"
)

// output tells how exports and imports go: people on standard error, programs
// on standard output.
type output struct {
	quiet, json bool
	events      *progress.Events // with json
	// several jobs may run at a time.
	several bool
}

// outputFlags adds the flags that choose who is told.
func outputFlags(flags *pflag.FlagSet) *output {
	o := &output{events: progress.NewEvents(os.Stdout)}
	flags.BoolVar(&o.json, "json", false, "print an object of JSON a line on standard output: stages, progress, messages, and a report or an error; sizes in bytes")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "print errors only")
	return o
}

// meter returns the meter for a job.
func (o *output) meter(job string) *progress.Meter {
	switch {
	case o.json:
		return o.events.Meter(job)
	case o.quiet:
		return nil
	case o.several:
		return progress.NewFor(os.Stderr, job)
	}
	return progress.New(os.Stderr)
}

// end tells how a job ended.
func (o *output) end(job string, r *area.Report, err error) {
	switch {
	case o.json && err != nil:
		o.events.Write("error", job, cli.FieldsOf(err))
	case o.json:
		o.events.Write("report", job, r)
	case err == nil && !o.quiet:
		fmt.Fprintln(os.Stderr, r)
	}
}

// Begin implements [area.Watcher].
func (o *output) Begin(options area.Options) area.Options {
	options.Meter = o.meter(options.Image)
	return options
}

// End implements [area.Watcher]: of several images each failure is told at
// once; an interrupt, which ends all, is told once.
func (o *output) End(image string, r *area.Report, err error) {
	o.end(image, r, err)
	if err != nil && !errors.Is(err, context.Canceled) {
		cli.Report(os.Stderr, fmt.Errorf("%s: %w", image, err))
	}
}
