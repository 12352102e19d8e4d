package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// figure is a line of the table.
type figure struct {
	what string
	// ours and peer are medians, in unit; see format. A peer of 0: there is
	// none.
	ours, peer float64
	unit       unit
	// goal of the ratio ours/peer, or of ours itself where there is no peer.
	goal float64
	// atLeast: the ratio should be goal or more, else goal or less.
	atLeast bool
	// absolute: the goal is one of ours, not of the ratio.
	absolute bool
}

type unit int

const (
	seconds unit = iota
	bytesPerSecond
	perSecond
	bytes
	ratio
)

func (u unit) format(v float64) string {
	switch u {
	case seconds:
		return fmt.Sprintf("%.1f ms", v*1e3)
	case bytesPerSecond:
		return fmt.Sprintf("%.2f GB/s", v/1e9)
	case perSecond:
		return fmt.Sprintf("%.1f k/s", v/1e3)
	case bytes:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	default:
		return fmt.Sprintf("%.2f×", v)
	}
}

// ratio of ours to the peer's.
func (f figure) ratio() float64 { return f.ours / f.peer }

func (f figure) met() bool {
	v := f.ratio()
	if f.absolute {
		v = f.ours
	}
	if f.atLeast {
		return v >= f.goal
	}
	return v <= f.goal
}

func printTable(w io.Writer, figures []figure) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "FIGURE\tOURS\tPEER\tRATIO\tGOAL\tIS")
	for _, f := range figures {
		sign, verdict := "≤", "met"
		if f.atLeast {
			sign = "≥"
		}
		if !f.met() {
			verdict = "missed"
		}
		goal := fmt.Sprintf("%s %.1f×", sign, f.goal)
		if f.absolute {
			goal = sign + " " + f.unit.format(f.goal)
		}
		peer, ratio := "-", "-"
		if f.peer > 0 {
			peer, ratio = f.unit.format(f.peer), fmt.Sprintf("%.2f×", f.ratio())
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", f.what, f.unit.format(f.ours), peer, ratio, goal, verdict)
	}
	table.Flush()
}

func median(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}
