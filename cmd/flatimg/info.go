package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/cli"
	"flatimg/layers"
	"flatimg/layers/volume"
)

var infoVerb = verb{
	name:    "info",
	args:    "[FLAGS] IMAGE",
	summary: "show the chain of an image: layers, sizes, features, snapshots",
	run: func(_ context.Context, flags *pflag.FlagSet, args []string) error {
		var o infoOptions
		source := sourceFlags(flags)
		flags.BoolVar(&o.json, "json", false, "print what qemu-img info --backing-chain --output=json prints, sizes in bytes")
		if err := parse(flags, args, 1, 1); err != nil {
			return err
		}
		o.layers = source.layers()
		return showInfo(os.Stdout, flags.Arg(0), o)
	},
}

type infoOptions struct {
	layers layers.Options
	json   bool
}

func showInfo(w io.Writer, path string, o infoOptions) error {
	im, err := layers.Open(path, o.layers)
	if err != nil {
		return err
	}
	defer im.Close()
	var all []imageInfo
	for _, l := range im.Layers() {
		// From the top down, as qemu-img has it.
		all = append([]imageInfo{newImageInfo(l)}, all...)
	}
	for i := range all[:len(all)-1] {
		all[i].FullBacking = all[i+1].Filename
	}
	if o.json {
		return printInfoJSON(w, all)
	}
	return printInfo(w, all)
}

// imageInfo is a layer in the terms of qemu-img info (ImageInfo in QEMU's
// qapi/block-core.json). Sizes are in bytes.
type imageInfo struct {
	Snapshots     []snapshotInfo  `json:"snapshots,omitempty"`
	BackingFormat string          `json:"backing-filename-format,omitempty"`
	VirtualSize   int64           `json:"virtual-size"`
	Filename      string          `json:"filename"`
	ClusterSize   int64           `json:"cluster-size,omitempty"`
	Format        string          `json:"format"`
	ActualSize    int64           `json:"actual-size"`
	Specific      *formatSpecific `json:"format-specific,omitempty"`
	FullBacking   string          `json:"full-backing-filename,omitempty"`
	Backing       string          `json:"backing-filename,omitempty"`
	Dirty         bool            `json:"dirty-flag"`

	features  []string
	corrupt   bool
	hasWriter bool
}

type formatSpecific struct {
	Type string         `json:"type"`
	Data map[string]any `json:"data"`
}

// snapshotInfo is SnapshotInfo of the same schema.
type snapshotInfo struct {
	Icount      *int64 `json:"icount,omitempty"`
	VMClockNsec uint64 `json:"vm-clock-nsec"`
	Name        string `json:"name"`
	DateSec     uint32 `json:"date-sec"`
	DateNsec    uint32 `json:"date-nsec"`
	VMClockSec  uint64 `json:"vm-clock-sec"`
	ID          string `json:"id"`
	VMStateSize int64  `json:"vm-state-size"`

	size int64
}

func newImageInfo(l layers.Layer) imageInfo {
	info := imageInfo{
		VirtualSize: l.Size(),
		Filename:    l.Path,
		Format:      l.Format(),
		// QEMU counts the image file only, not the data file.
		ActualSize: l.Files()[0].DiskUsage(),
		hasWriter:  l.HasWriter,
	}
	d, ok := l.Volume.(volume.Describer)
	if !ok {
		return info
	}
	own := d.Info()
	info.ClusterSize = own.ClusterSize
	info.Backing, info.BackingFormat = own.Backing, own.BackingFormat
	info.Dirty, info.corrupt = own.Dirty, own.Corrupt
	info.features = own.Features
	if own.Specific != nil {
		info.Specific = &formatSpecific{Type: l.Format(), Data: own.Specific}
	}
	const second = uint64(time.Second)
	for _, s := range own.Snapshots {
		i := snapshotInfo{
			Name: s.Name, ID: s.ID, DateSec: s.Seconds, DateNsec: s.Nanoseconds,
			VMClockSec: s.VMClock / second, VMClockNsec: s.VMClock % second, VMStateSize: s.VMStateSize, size: s.Size,
		}
		if s.Icount != -1 {
			i.Icount = &s.Icount
		}
		info.Snapshots = append(info.Snapshots, i)
	}
	return info
}

func printInfoJSON(w io.Writer, all []imageInfo) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "    ")
	enc.SetEscapeHTML(false)
	return enc.Encode(all)
}

func printInfo(w io.Writer, all []imageInfo) error {
	top := all[0]
	var held int64
	for _, i := range all {
		held += i.ActualSize
	}
	fmt.Fprintf(w, "image: %s\nvirtual size: %s (%d bytes)\nspace held by the chain: %s\nlayers: %d, the top one first\n\n",
		top.Filename, cli.FormatSize(top.VirtualSize), top.VirtualSize, cli.FormatSize(held), len(all))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "LAYER\tFORMAT\tVIRTUAL\tHELD\tCLUSTER\tFEATURES\tFILE")
	for n, i := range all {
		cluster, features := "-", "-"
		if i.ClusterSize > 0 {
			cluster = cli.FormatSize(i.ClusterSize)
		}
		if f := i.marks(); len(f) > 0 {
			features = strings.Join(f, ", ")
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", len(all)-1-n, i.Format, cli.FormatSize(i.VirtualSize),
			cli.FormatSize(i.ActualSize), cluster, features, i.Filename)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return printSnapshots(w, all)
}

// marks are the features and whatever else is worth a word.
func (i imageInfo) marks() []string {
	marks := i.features
	if i.Dirty {
		marks = append(marks, "dirty")
	}
	if i.corrupt {
		marks = append(marks, "marked corrupt")
	}
	if i.hasWriter {
		marks = append(marks, "in use by a writer")
	}
	return marks
}

func printSnapshots(w io.Writer, all []imageInfo) error {
	for n, i := range all {
		if len(i.Snapshots) == 0 {
			continue
		}
		fmt.Fprintf(w, "\nsnapshots in layer %d:\n", len(all)-1-n)
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tNAME\tDATE\tDISK\tVM STATE")
		for _, s := range i.Snapshots {
			date := time.Unix(int64(s.DateSec), int64(s.DateNsec)).Format(time.DateTime)
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", s.ID, s.Name, date, cli.FormatSize(s.size), cli.FormatSize(s.VMStateSize))
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	return nil
}
