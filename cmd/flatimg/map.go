package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/cli"
	"flatimg/layers"
	"flatimg/layers/volume"
)

var mapVerb = verb{
	name:    "map",
	args:    "[FLAGS] IMAGE",
	summary: "show which layer holds the newest data for each offset",
	run: func(_ context.Context, flags *pflag.FlagSet, args []string) error {
		o := mapOptions{length: sizeFlag(layers.MaxLength)}
		source := sourceFlags(flags)
		snapshot := snapshotFlag(flags)
		flags.BoolVar(&o.json, "json", false, "print what qemu-img map --output=json prints, offsets and lengths in bytes")
		flags.VarP(&o.start, "start-offset", "s", "begin at this guest offset (`SIZE`)")
		flags.VarP(&o.length, "max-length", "l", "show at most this many guest bytes (`SIZE`)")
		flags.Lookup("max-length").DefValue = ""
		flags.Lookup("start-offset").DefValue = ""
		if err := parse(flags, args, 1, 1); err != nil {
			return err
		}
		o.layers = source.layers()
		o.layers.Snapshot = *snapshot
		return showMap(os.Stdout, flags.Arg(0), o)
	},
}

type mapOptions struct {
	layers        layers.Options
	json          bool
	start, length sizeFlag
}

func showMap(w io.Writer, path string, o mapOptions) error {
	im, err := layers.Open(path, o.layers)
	if err != nil {
		return err
	}
	defer im.Close()
	if int64(o.start) > im.Size() {
		return cli.Usagef("--start-offset %d is past the end of the disk, which has %d bytes", int64(o.start), im.Size())
	}
	out := bufio.NewWriter(w)
	entries := mapEntries(im, im.Extents(int64(o.start), int64(o.length)))
	if o.json {
		err = printMapJSON(out, entries)
	} else {
		err = printMapTable(out, im, entries)
	}
	if flushErr := out.Flush(); err == nil {
		err = flushErr
	}
	return err
}

// mapEntry is a run of the disk in the terms of qemu-img map (MapEntry in
// QEMU's qapi/block-core.json).
type mapEntry struct {
	Start, Length       int64 // in guest bytes
	Depth               int   // of the layer: 0 is the top
	Present, Zero, Data bool
	Offset              int64 // in file; volume.NoHost: there is none

	// Told to people only.
	kind volume.Kind
	file string
}

// mapEntries turns extents to entries, adjacent equal ones merged: qemu-img
// does not tell one compressed cluster from the next.
func mapEntries(im *layers.Image, extents iter.Seq2[layers.Extent, error]) iter.Seq2[mapEntry, error] {
	return func(yield func(mapEntry, error) bool) {
		var held mapEntry
		for e, err := range extents {
			if err != nil {
				yield(mapEntry{}, err)
				return
			}
			for _, next := range newMapEntries(im, e) {
				if held.Length > 0 && held.continuedBy(next) {
					held.Length += next.Length
					continue
				}
				if held.Length > 0 && !yield(held, nil) {
					return
				}
				held = next
			}
		}
		if held.Length > 0 {
			yield(held, nil)
		}
	}
}

// newMapEntries returns the one or two entries of e.
func newMapEntries(im *layers.Image, e layers.Extent) []mapEntry {
	chain := im.Layers()
	m := mapEntry{Start: e.Offset, Length: e.Length, Offset: volume.NoHost, file: "-", kind: e.Kind}
	if e.Kind == volume.Hole {
		m.Depth, m.Zero = len(chain)-1, true
		m.Offset = e.Host
		return []mapEntry{m}
	}
	m.Depth, m.Present = len(chain)-1-e.Layer, true
	m.Zero = e.Kind == volume.Zero || e.Kind == volume.Unwritten
	m.Data = e.Kind != volume.Zero
	m.file = chain[e.Layer].Files()[e.File].Path()
	if e.Kind != volume.Compressed {
		m.Offset = e.Host
	}
	// What lies past the end of a layer that is shorter than the one above it
	// is said to be not present in that one.
	split := max(0, chain[e.Layer].Size()-m.Start)
	if split >= m.Length {
		return []mapEntry{m}
	}
	past := m
	past.Start, past.Length = m.Start+split, m.Length-split
	past.Depth, past.Present = m.Depth-1, false
	m.Length = split
	if split == 0 {
		return []mapEntry{past}
	}
	return []mapEntry{m, past}
}

func (m mapEntry) continuedBy(next mapEntry) bool {
	if m.Depth != next.Depth || m.Present != next.Present || m.Zero != next.Zero || m.Data != next.Data ||
		m.kind != next.kind || m.file != next.file {
		return false
	}
	if m.Offset == volume.NoHost || next.Offset == volume.NoHost {
		return m.Offset == next.Offset
	}
	return m.Offset+m.Length == next.Offset
}

// printMapJSON prints an array with an entry a line, so that a long map can be
// read by line tools, too. A map can have millions of entries, which is why
// they are not left to package json.
func printMapJSON(w io.Writer, entries iter.Seq2[mapEntry, error]) error {
	line := []byte("[")
	for m, err := range entries {
		if err != nil {
			return err
		}
		if len(line) != 1 {
			line = append(line[:0], ",\n"...)
		}
		line = m.appendJSON(line)
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	if len(line) == 1 { // no entry
		fmt.Fprint(w, "[")
	}
	_, err := fmt.Fprintln(w, "]")
	return err
}

func (m mapEntry) appendJSON(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"start":`...), m.Start, 10)
	b = strconv.AppendInt(append(b, `,"length":`...), m.Length, 10)
	b = strconv.AppendInt(append(b, `,"depth":`...), int64(m.Depth), 10)
	b = strconv.AppendBool(append(b, `,"present":`...), m.Present)
	b = strconv.AppendBool(append(b, `,"zero":`...), m.Zero)
	b = strconv.AppendBool(append(b, `,"data":`...), m.Data)
	if m.Offset != volume.NoHost {
		b = strconv.AppendInt(append(b, `,"offset":`...), m.Offset, 10)
	}
	return append(b, '}')
}

func printMapTable(w io.Writer, im *layers.Image, entries iter.Seq2[mapEntry, error]) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "OFFSET\tLENGTH\tKIND\tLAYER\tAT\tFILE")
	for m, err := range entries {
		if err != nil {
			table.Flush()
			return err
		}
		layer, at := "-", "-"
		if m.Present {
			layer = fmt.Sprint(len(im.Layers()) - 1 - m.Depth)
		}
		if m.Offset != volume.NoHost {
			at = fmt.Sprintf("%#x", m.Offset)
		}
		fmt.Fprintf(table, "%#x\t%s\t%s\t%s\t%s\t%s\n", m.Start, cli.FormatSize(m.Length), m.kind, layer, at, m.file)
	}
	return table.Flush()
}
