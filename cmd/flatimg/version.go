package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"
)

// version is set by the linker for releases; otherwise it is taken from the
// build's own record.
var version string

var versionVerb = verb{
	name:    "version",
	summary: "print the version",
	run: func(_ context.Context, flags *pflag.FlagSet, args []string) error {
		if err := parse(flags, args, 0, 0); err != nil {
			return err
		}
		fmt.Printf("flatimg %s (%s %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return nil
	},
}

func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return info.Main.Version
}
