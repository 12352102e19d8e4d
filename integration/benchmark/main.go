// Command benchmark measures flatimg against QEMU's own tools and prints a
// table of ratios with their goals.
//
// A figure is the ratio of two medians of one run: the two sides are measured
// alternately (A B A B …), on the same chain, with its layers in the page cache
// and the page cache of the views dropped. So it says little about the machine
// and much about the program. Nothing here is a test: a goal that is missed is
// shown, and the exit code stays 0.
//
// Figures come in groups, each in a file of its own; see [groups].
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"flatimg/integration/rig"
)

// group is a set of figures that share chains and mounts.
type group struct {
	name    string
	measure func(b *bench) []figure
}

// groups in the order in which they run.
var groups = []group{
	{"sequential", sequential},
	{"random", random},
	{"depth", depth},
	{"map", mapTime},
	{"export", export},
	{"formats", formats},
	{"s3", s3},
	{"sftp", sftp},
	{"nbd", nbd},
	{"rss", rss},
	{"sparse", sparse},
	{"terabyte", terabyte},
}

func main() {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	only := flag.String("only", "", "measure only these `GROUPS`, separated by commas, of: "+strings.Join(names, " "))
	quick := flag.Bool("quick", false, "small chains and few runs: to see that it works, not for figures")
	runs := flag.Int("runs", 7, "measure each side `N` times")
	dir := flag.String("dir", os.TempDir(), "make chains in this `DIR`, best on ext4")
	flag.Parse()
	chosen := names
	if *only != "" {
		chosen = strings.Split(*only, ",")
	}
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			fmt.Fprintf(os.Stderr, "bench: no group %q, use some of: %s\n", name, strings.Join(names, " "))
			os.Exit(2)
		}
	}
	if *quick {
		*runs = 3
	}

	os.Exit(run(chosen, &bench{harness: newHarness(*dir), quick: *quick, runs: max(*runs, 1)}))
}

func run(chosen []string, b *bench) (code int) {
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-interrupted
		b.cleanup()
		rig.RemoveBinary()
		os.Exit(130)
	}()
	defer rig.RemoveBinary()
	defer b.cleanup()

	var figures []figure
	for _, g := range groups {
		if !slices.Contains(chosen, g.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", g.name)
		var measured []figure
		if err := b.attempt(func() { measured = g.measure(b) }); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", g.name, err)
			code = 1
		}
		figures = append(figures, measured...)
	}
	printTable(os.Stdout, figures)
	return code
}
