package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/area"
)

var importVerb = verb{
	name:    "import",
	args:    "[FLAGS] SRC IMAGE",
	summary: "bring an image from a server, or from a file, to a local image",
	run: func(ctx context.Context, flags *pflag.FlagSet, args []string) error {
		var o area.ImportOptions
		flags.StringVar(&o.Format, "format", "", "`FORMAT[,OPTION=VALUE]...` of IMAGE; default: what its extension names; the file stays as it is where that is its own, or none")
		flags.StringVar(&o.Onto, "onto", "", "make IMAGE a qcow2 overlay on the image `BASE`, of what differs from it")
		flags.BoolVar(&o.Force, "force", false, "replace an existing IMAGE")
		var sum digestFlag
		flags.Var(&sum, "sha256", "refuse a file without this SHA-256, as `HEX` digits")
		flags.BoolVar(&o.Resume, "resume", false, "only go on with an earlier import of the same, never begin anew; without it that is done where possible")
		flags.StringVar(&o.Area, "area", "", "fetch into this `DIR`; default: $FLATIMG_AREA, else the folder for temporary files")
		server := serverFlags(flags)
		out := outputFlags(flags)
		source := sourceFlags(flags)
		snapshot := snapshotFlag(flags)
		if err := parse(flags, args, 2, 2); err != nil {
			return err
		}
		o.Source, o.Image = flags.Arg(0), flags.Arg(1)
		o.SHA256 = sum
		o.BandwidthLimit = int64(server.bwlimit.sizeFlag)
		o.Server = server.servers()
		o.Open = source.layers()
		o.Open.Snapshot = *snapshot
		o.Meter = out.meter(o.Source)
		report, err := area.Import(ctx, o)
		out.end(o.Source, report, err)
		return err
	},
}

// digestFlag is a flag value that is a SHA-256 in hexadecimal digits.
type digestFlag []byte

func (d *digestFlag) String() string { return hex.EncodeToString(*d) }
func (d *digestFlag) Type() string   { return "hex" }

func (d *digestFlag) Set(text string) error {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != sha256.Size {
		return errors.New("a SHA-256 has 64 hexadecimal digits")
	}
	*d = b
	return nil
}
