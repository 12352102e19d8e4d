package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"flatimg/cmd/internal/area"
	"flatimg/cmd/internal/cli"
)

var jobsVerb = verb{
	name:    "jobs",
	args:    "[FLAGS]",
	summary: "list exports and imports that were interrupted, or remove them",
	run: func(ctx context.Context, flags *pflag.FlagSet, args []string) error {
		dir := flags.String("area", "", "look in this `DIR`; default: $FLATIMG_AREA, else the folder for temporary files")
		remove := flags.StringArray("remove", nil, "remove the job `ID`, with what it has sent; may be repeated")
		removeAll := flags.Bool("remove-all", false, "remove all jobs that nobody works on")
		asJSON := flags.Bool("json", false, "print a list of objects of JSON, sizes in bytes")
		if err := parse(flags, args, 0, 0); err != nil {
			return err
		}
		where := area.Directory(*dir)
		if *removeAll || len(*remove) > 0 {
			return removeJobs(ctx, where, *remove, *removeAll)
		}
		jobs, err := area.Jobs(where)
		if err != nil {
			return err
		}
		if *asJSON {
			enc := json.NewEncoder(os.Stdout)
			enc.SetIndent("", "  ")
			return enc.Encode(jobs)
		}
		if len(jobs) == 0 {
			fmt.Fprintf(os.Stderr, "flatimg: no interrupted exports or imports in %s\n", where)
		}
		return listJobs(os.Stdout, jobs)
	},
}

func listJobs(w io.Writer, jobs []area.Job) error {
	if len(jobs) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tBEGUN\tDONE\tOF\tSTATE\tJOB")
	for _, j := range jobs {
		state, what := "interrupted", j.Image+" -> "+j.URL
		if j.Running {
			state = "running"
		}
		if j.Import {
			what = j.URL + " -> " + j.Image
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", j.ID, j.Begun.Local().Format("2006-01-02 15:04"),
			cli.FormatSize(j.Done), cli.FormatSize(j.Data), state, what)
	}
	return table.Flush()
}

// removeJobs removes jobs, all that it can. One that is gone or busy is no
// failure when all are to be removed.
func removeJobs(ctx context.Context, where string, ids []string, all bool) error {
	if all {
		jobs, err := area.Jobs(where)
		if err != nil {
			return err
		}
		ids = nil
		for _, j := range jobs {
			if !j.Running {
				ids = append(ids, j.ID)
			}
		}
	}
	var failed error
	for _, id := range ids {
		err := area.RemoveJob(ctx, where, id)
		if all && (errors.Is(err, area.ErrNoJob) || errors.Is(err, area.ErrBusy)) {
			continue
		}
		failed = errors.Join(failed, err)
	}
	return failed
}
