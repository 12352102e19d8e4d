package main

import (
	"github.com/spf13/pflag"

	"flatimg/cmd/internal/cli"
)

// sizeFlag is a flag value in bytes that takes the suffixes k, M, G and T.
type sizeFlag int64

func (s *sizeFlag) String() string { return cli.FormatSize(int64(*s)) }
func (s *sizeFlag) Type() string   { return "size" }

func (s *sizeFlag) Set(text string) error {
	n, err := cli.ParseSize(text)
	*s = sizeFlag(n)
	return err
}

// virtualSizeFlag adds the flag for the virtual size of a target.
func virtualSizeFlag(flags *pflag.FlagSet) *sizeFlag {
	var size sizeFlag
	flags.Var(&size, "virtual-size", "grow the guest's disk to this `SIZE`, with zeros at its end; default: that of the image")
	return &size
}
