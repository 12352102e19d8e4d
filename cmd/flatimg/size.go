package main

import (
	"errors"

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

// diskSizeFlag is a flag value for the size of a disk: whole sectors, not zero.
type diskSizeFlag struct{ sizeFlag }

// String is empty without a size, so that the help shows no default.
func (s *diskSizeFlag) String() string {
	if s.sizeFlag == 0 {
		return ""
	}
	return s.sizeFlag.String()
}

func (s *diskSizeFlag) Set(text string) error {
	if err := s.sizeFlag.Set(text); err != nil {
		return err
	}
	if s.sizeFlag <= 0 || s.sizeFlag%512 != 0 {
		return errors.New("it must be a multiple of 512 bytes, and not zero")
	}
	return nil
}

// virtualSizeFlag adds the flag for the virtual size of a target.
func virtualSizeFlag(flags *pflag.FlagSet) *diskSizeFlag {
	var size diskSizeFlag
	flags.Var(&size, "virtual-size", "grow the guest's disk to this `SIZE`, with zeros at its end; default: that of the image")
	return &size
}
