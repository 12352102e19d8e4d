package main

import "flatimg/cmd/internal/cli"

// sizeFlag is a flag value in bytes that takes the suffixes k, M, G and T.
type sizeFlag int64

func (s *sizeFlag) String() string { return cli.FormatSize(int64(*s)) }
func (s *sizeFlag) Type() string   { return "size" }

func (s *sizeFlag) Set(text string) error {
	n, err := cli.ParseSize(text)
	*s = sizeFlag(n)
	return err
}
