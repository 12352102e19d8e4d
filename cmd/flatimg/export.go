package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/area"
	"flatimg/cmd/internal/progress"
)

var exportVerb = verb{
	name:    "export",
	args:    "[FLAGS] IMAGE DEST",
	summary: "write the flattened image to a file or to a server",
	run: func(ctx context.Context, flags *pflag.FlagSet, args []string) error {
		var o area.Options
		flags.StringVar(&o.Format, "format", "", "target `FORMAT[,OPTION=VALUE]...`; default: what the extension of DEST names, else raw")
		virtualSize := virtualSizeFlag(flags)
		flags.BoolVar(&o.Force, "force", false, "replace an existing file")
		flags.BoolVar(&o.Verify, "verify", false, "read the view and the file, and compare them by SHA-256, before the file appears; what is sent is verified in any case")
		flags.BoolVarP(&o.DropZeros, "sparse", "S", false, "read all data first, and leave out each 4 KiB that are zeros; compressed formats always do")
		flags.StringVar(&o.Area, "area", "", "make the file in this `DIR` and send it from there; default: a local file is made where it is to be, others in $FLATIMG_AREA, else in the folder for temporary files")
		flags.BoolVar(&o.Keep, "keep-area", false, "keep the file in the area, too")
		flags.StringVar(&o.SSH, "ssh-command", "", "`COMMAND` that starts ssh, with options; default: $FLATIMG_SSH, else ssh")
		quiet := flags.BoolP("quiet", "q", false, "print errors only")
		source := sourceFlags(flags)
		snapshot := snapshotFlag(flags)
		if err := parse(flags, args, 2, 2); err != nil {
			return err
		}
		o.Image, o.Dest = flags.Arg(0), flags.Arg(1)
		o.VirtualSize = int64(virtualSize.sizeFlag)
		o.Open = source.layers()
		o.Open.Snapshot = *snapshot
		if *quiet {
			_, err := area.Export(ctx, o)
			return err
		}
		o.Meter = progress.New(os.Stderr)
		report, err := area.Export(ctx, o)
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, report)
		return nil
	},
}
