package main

import (
	"context"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/mounting"
)

var unmountVerb = verb{
	name:    "unmount",
	args:    "[--lazy] MOUNTPOINT",
	summary: "unmount, and wait until the server has ended",
	run: func(ctx context.Context, flags *pflag.FlagSet, args []string) error {
		lazy := flags.Bool("lazy", false, "detach it though it is in use; its server ends with its last user")
		if err := parse(flags, args, 1, 1); err != nil {
			return err
		}
		return mounting.Unmount(ctx, flags.Arg(0), *lazy)
	},
}
