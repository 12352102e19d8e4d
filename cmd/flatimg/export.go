package main

import (
	"context"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/area"
)

var exportVerb = verb{
	name:    "export",
	args:    "[FLAGS] IMAGE... DEST",
	summary: "write the flattened image to a file or to a server",
	run: func(ctx context.Context, flags *pflag.FlagSet, args []string) error {
		var o area.Options
		flags.StringVar(&o.Format, "format", "", "target `FORMAT[,OPTION=VALUE]...`; default: what the extension of DEST names, else raw")
		virtualSize := virtualSizeFlag(flags)
		flags.BoolVarP(&o.DropZeros, "sparse", "S", false, "read all data first, and leave out each 4 KiB that are zeros; compressed formats always do")
		flags.StringVar(&o.Since, "since", "", "export a qcow2 with only the changes above `LAYER`: a number as info shows it, a path or a file name")
		force := flags.Bool("force", false, "replace an existing file, overwrite a device")
		flags.BoolVar(&o.Verify, "verify", false, "read the view and the file, and compare them by SHA-256, before the file appears; read back what was sent")
		flags.BoolVar(&o.Stream, "stream", false, "send the view as it is read, without making a file in the area; not for compressed formats")
		flags.BoolVar(&o.Resume, "resume", false, "only go on with an earlier export of the same, never begin anew; without it that is done where possible")
		direct := flags.Bool("direct", false, "send under the final name where the server can't rename")
		flags.StringVar(&o.Area, "area", "", "make the file in this `DIR` and send it from there; default: a local file is made where it is to be, others in $FLATIMG_AREA, else in the folder for temporary files")
		flags.BoolVar(&o.Keep, "keep-area", false, "keep the file in the area, too")
		jobs := flags.Int("jobs", 1, "of several images export `N` at a time")
		server := serverFlags(flags)
		out := outputFlags(flags)
		source := sourceFlags(flags)
		snapshot := snapshotFlag(flags)
		if err := parse(flags, args, 2, -1); err != nil {
			return err
		}
		images := flags.Args()[:flags.NArg()-1]
		o.Dest = flags.Arg(flags.NArg() - 1)
		o.VirtualSize = int64(virtualSize.sizeFlag)
		o.BandwidthLimit = int64(server.bwlimit.sizeFlag)
		o.Server = server.servers()
		o.Server.Force, o.Server.Direct = *force, *direct
		o.Open = source.layers()
		o.Open.Snapshot = *snapshot
		if len(images) > 1 {
			out.several = *jobs > 1
			return area.ExportAll(ctx, images, o, *jobs, out)
		}
		o.Image = images[0]
		o.Meter = out.meter(o.Image)
		report, err := area.Export(ctx, o)
		out.end(o.Image, report, err)
		return err
	},
}
