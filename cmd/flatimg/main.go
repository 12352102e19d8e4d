// Command flatimg shows layered virtual disk images as flattened files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/cli"
)

// verb is a subcommand; each has a file of its own.
type verb struct {
	name    string
	args    string // as shown after the name in the usage line
	summary string // one line
	// run parses args, fills the options of the verb and makes one call.
	run func(ctx context.Context, flags *pflag.FlagSet, args []string) error
}

// verbs in the order in which the help shows them.
var verbs = []verb{mountVerb, unmountVerb, exportVerb, importVerb, jobsVerb, mapVerb, infoVerb, measureVerb, formatsVerb, demoVerb, versionVerb}

func main() {
	// The first signal ends the work in order; a second one kills at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Report(os.Stderr, run(ctx, os.Args[1:])))
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		usage(os.Stderr)
		return &cli.Error{Err: errors.New("no command given"), Code: cli.ExitUsage}
	}
	switch args[0] {
	case "-h", "--help", "help":
		usage(os.Stdout)
		return nil
	case "--version":
		args[0] = "version"
	}
	for _, v := range verbs {
		if v.name == args[0] {
			return v.call(ctx, args[1:])
		}
	}
	return &cli.Error{
		Err:  fmt.Errorf("unknown command %q", args[0]),
		Hint: "flatimg --help lists the commands",
		Code: cli.ExitUsage,
	}
}

func (v verb) call(ctx context.Context, args []string) error {
	flags := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
	flags.SortFlags = false
	flags.SetOutput(io.Discard) // cli.Report prints the error
	flags.Usage = func() {
		fmt.Printf("Usage: flatimg %s %s\n\n%s\n\nFlags:\n%s", v.name, v.args, v.summary, flags.FlagUsages())
	}
	err := v.run(ctx, flags, args)
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	return err
}

// parse parses args and checks the number of positional ones: at least least,
// at most most (-1: any number).
func parse(flags *pflag.FlagSet, args []string, least, most int) error {
	hint := fmt.Sprintf("flatimg %s --help lists arguments and flags", flags.Name())
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return err
		}
		return &cli.Error{Err: err, Hint: hint, Code: cli.ExitUsage}
	}
	switch n := flags.NArg(); {
	case n < least:
		return &cli.Error{Err: errors.New("too few arguments"), Hint: hint, Code: cli.ExitUsage}
	case most >= 0 && n > most:
		return &cli.Error{Err: fmt.Errorf("unexpected argument %q", flags.Arg(most)), Hint: hint, Code: cli.ExitUsage}
	}
	return nil
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "flatimg shows layered virtual disk images as flattened files.\n\nUsage: flatimg COMMAND [FLAGS] ARGUMENTS\n\nCommands:")
	for _, v := range verbs {
		fmt.Fprintf(w, "  %-9s %s\n", v.name, v.summary)
	}
	fmt.Fprintln(w, "\nflatimg COMMAND --help says more. A first look: flatimg demo")
}
