package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/mounting"
	"flatimg/convert"
)

var mountVerb = verb{
	name:    "mount",
	args:    "[FLAGS] SOURCE... MOUNTPOINT",
	summary: "show images, or all images of a folder, as flat files",
	run:     runMount,
}

func runMount(ctx context.Context, flags *pflag.FlagSet, args []string) error {
	var o mounting.Options
	formats := flags.StringArray("format", nil, "target `FORMAT` of the views, with its options after commas; may be repeated (default raw)")
	virtualSize := virtualSizeFlag(flags)
	flags.BoolVar(&o.AllLayers, "all-layers", false, "show each layer of an image too, as the disk was with it on top")
	flags.BoolVar(&o.Foreground, "foreground", false, "serve in this process until it is unmounted or gets a signal")
	flags.BoolVar(&o.AllowOther, "allow-other", false, "let all users read, not only yourself")
	options := flags.StringArrayP("options", "o", nil, "mount `OPTIONS`: "+mounting.KnownOptions())
	flags.StringVar(&o.LogFile, "log-file", "", "write the log to `FILE` (default syslog, in the foreground standard error)")
	flags.BoolVarP(&o.Verbose, "verbose", "v", false, "log more: images that are opened and closed, views that come and go")
	flags.BoolVar(&o.Sandbox, "sandbox", false, "once mounted, let the server open no files but those beneath the sources and the folders given for images")
	source := sourceFlags(flags)
	if err := parse(flags, args, 2, -1); err != nil {
		return err
	}
	if len(*formats) == 0 {
		*formats = []string{"raw"}
	}
	for _, f := range *formats {
		spec, err := convert.ParseSpec(f)
		if err != nil {
			return err
		}
		if spec.Packed() {
			return &convert.PackedError{Spec: spec}
		}
		spec.VirtualSize = int64(virtualSize.sizeFlag)
		o.Formats = append(o.Formats, spec)
	}
	if err := mounting.ApplyOptions(&o.Options, *options); err != nil {
		return err
	}
	last := flags.NArg() - 1
	o.Sources = flags.Args()[:last]
	o.Layers = source.layers()
	var err error
	if o.Mountpoint, err = filepath.Abs(flags.Arg(last)); err != nil {
		return err
	}
	return mounting.Mount(ctx, o)
}
