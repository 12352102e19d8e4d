package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"flatimg/convert"
)

var formatsVerb = verb{
	name:    "formats",
	args:    "",
	summary: "list the target formats with their options and limits",
	run: func(_ context.Context, flags *pflag.FlagSet, args []string) error {
		if err := parse(flags, args, 0, 0); err != nil {
			return err
		}
		return listFormats(os.Stdout, convert.Describe())
	},
}

// listFormats prints a paragraph for each format.
func listFormats(w io.Writer, formats []convert.FormatInfo) error {
	out := bufio.NewWriter(w)
	for _, f := range formats {
		fmt.Fprintf(out, "%s (%s): %s\n", f.Name, f.Extension, strings.Join(formatNotes(f), "; "))
		table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		for _, o := range f.Options {
			initial := "-"
			if o.Default != "" {
				initial = "default " + o.Default
			}
			fmt.Fprintf(table, "  %s=%s\t%s\t%s\n", o.Name, o.Values, initial, strings.Join(optionNotes(o), "; "))
		}
		if err := table.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "Sizes are in bytes, or with k, M, G, T. What can't be mounted can be exported.")
	return out.Flush()
}

func formatNotes(f convert.FormatInfo) []string {
	notes := []string{f.About}
	if f.Alias != "" {
		notes = append(notes, "QEMU's name "+f.Alias+" is taken, too")
	}
	if f.Largest != "" {
		notes = append(notes, "disks up to "+f.Largest)
	}
	if f.Packed {
		notes = append(notes, "can't be mounted")
	}
	return notes
}

func optionNotes(o convert.OptionInfo) []string {
	var notes []string
	if o.About != "" {
		notes = append(notes, o.About)
	}
	if len(o.Packed) > 0 {
		notes = append(notes, strings.Join(o.Packed, ", ")+" can't be mounted")
	}
	return notes
}
