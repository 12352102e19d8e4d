package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/cli"
	"flatimg/convert"
	"flatimg/layers"
)

var measureVerb = verb{
	name:    "measure",
	args:    "[FLAGS] IMAGE",
	summary: "tell the exact size of an image in a target format",
	run: func(_ context.Context, flags *pflag.FlagSet, args []string) error {
		var o measureOptions
		flags.StringVar(&o.format, "format", "", "measure only this target `FORMAT`, as in qcow2,cluster_size=2M; default: all of them, with --json raw")
		virtualSize := virtualSizeFlag(flags)
		flags.BoolVar(&o.json, "json", false, "print what qemu-img measure --output=json prints, sizes in bytes; for a compressed target they are upper bounds, and \"exact\": false says so")
		source := sourceFlags(flags)
		snapshot := snapshotFlag(flags)
		if err := parse(flags, args, 1, 1); err != nil {
			return err
		}
		o.virtualSize = int64(virtualSize.sizeFlag)
		o.layers = source.layers()
		o.layers.Snapshot = *snapshot
		return measure(os.Stdout, flags.Arg(0), o)
	},
}

type measureOptions struct {
	format string
	json   bool
	// virtualSize in bytes of the target; 0: that of the image.
	virtualSize int64
	layers      layers.Options
}

func measure(w io.Writer, path string, o measureOptions) error {
	specs, err := o.specs()
	if err != nil {
		return err
	}
	im, err := layers.Open(path, o.layers)
	if err != nil {
		return err
	}
	defer im.Close()
	if o.json {
		return measureJSON(w, im, specs[0])
	}
	return measureTable(w, im, specs)
}

// specs returns the target formats to measure.
func (o measureOptions) specs() ([]convert.Spec, error) {
	names := convert.Formats()
	switch {
	case o.format != "":
		names = []string{o.format}
	case o.json:
		names = []string{"raw"} // as qemu-img measure does
	}
	specs := make([]convert.Spec, len(names))
	for i, name := range names {
		var err error
		if specs[i], err = convert.ParseSpec(name); err != nil {
			return nil, err
		}
		specs[i].VirtualSize = o.virtualSize
	}
	return specs, nil
}

func measureJSON(w io.Writer, im *layers.Image, spec convert.Spec) error {
	m, err := convert.Measure(im, spec)
	if err != nil {
		return err
	}
	out := struct {
		Required       int64 `json:"required"`
		FullyAllocated int64 `json:"fully-allocated"`
		// Exact is no key of QEMU's, which estimates: it is there, and false,
		// only when the sizes are upper bounds.
		Exact *bool `json:"exact,omitempty"`
	}{m.Required, m.FullyAllocated, nil}
	if m.AtMost {
		out.Exact = new(false)
	}
	text, err := json.MarshalIndent(out, "", "    ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}

// measureTable prints a line for each target. A format that can't hold the disk
// is told as such; it is an error only when it is the one that was asked for.
func measureTable(w io.Writer, im *layers.Image, specs []convert.Spec) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FORMAT\tREQUIRED\t\tFULLY ALLOCATED\t\tVIRTUAL SIZE")
	for _, spec := range specs {
		m, err := convert.Measure(im, spec)
		if limit, ok := errors.AsType[*convert.LimitError](err); ok && len(specs) > 1 {
			fmt.Fprintf(table, "%s\tnot possible: %s\n", spec, limit.Limit)
			continue
		}
		if err != nil {
			return err
		}
		atMost := ""
		if m.AtMost {
			atMost = "at most "
		}
		fmt.Fprintf(table, "%s\t%s%s\t%d bytes\t%s\t%d bytes\t%s\t%d bytes\n", spec,
			atMost, cli.FormatSize(m.Required), m.Required,
			cli.FormatSize(m.FullyAllocated), m.FullyAllocated,
			cli.FormatSize(m.GuestSize), m.GuestSize)
	}
	return table.Flush()
}
