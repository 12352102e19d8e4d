package main

import (
	"context"
	"os"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/demo"
)

var demoVerb = verb{
	name:    "demo",
	summary: "mount, read and export a small image that is part of the program",
	run: func(ctx context.Context, flags *pflag.FlagSet, args []string) error {
		if err := parse(flags, args, 0, 0); err != nil {
			return err
		}
		program, err := os.Executable()
		if err != nil {
			return err
		}
		return demo.Run(ctx, os.Stdout, program)
	},
}
