package area

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/schemes"
)

// Job is an unfinished export or import in an area.
type Job struct {
	ID    string    `json:"id"`
	Begun time.Time `json:"begun"`
	Request
	// Size of the files, and Data of them, in bytes; Done is what of the data
	// has arrived.
	Size int64 `json:"size"`
	Data int64 `json:"data"`
	Done int64 `json:"done"`
	// Running: a process works on it.
	Running bool `json:"running"`
}

// Jobs returns the jobs in an area, the oldest first. Those of other users are
// left out.
func Jobs(area string) ([]Job, error) {
	if err := checkReadable(area); err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(filepath.Join(escapeGlob(area), jobPrefix+"*"))
	if err != nil {
		return nil, err
	}
	jobs := []Job{} // not null in JSON
	for _, dir := range dirs {
		l, err := lockJob(dir)
		if err == nil {
			l.close()
		} else if !errors.Is(err, ErrBusy) {
			continue // somebody else's, whose record is better not read
		}
		r, recordErr := readRecord(dir)
		if recordErr != nil {
			continue // a kept file
		}
		j := Job{ID: filepath.Base(dir)[len(jobPrefix):], Begun: r.Begun, Request: r.Request, Running: err != nil}
		for _, f := range r.Files {
			j.Size += max(f.Size, 0)
			j.Data += f.Data
			j.Done += f.Done
		}
		jobs = append(jobs, j)
	}
	slices.SortFunc(jobs, func(a, b Job) int { return a.Begun.Compare(b.Begun) })
	return jobs, nil
}

func checkReadable(area string) error {
	if _, err := os.ReadDir(area); err != nil {
		return &cli.Error{Err: fmt.Errorf("area: %w", err), Hint: "--area DIR names the area", Code: cli.ExitUsage}
	}
	return nil
}

// ErrNoJob: there is no such job.
var ErrNoJob = errors.New("no such job")

// RemoveJob removes a job with what it has sent to its server.
func RemoveJob(ctx context.Context, area, id string) error {
	dir := filepath.Join(area, jobPrefix+id)
	if id == "" || strings.ContainsRune(id, '/') {
		return noJob(id)
	}
	j, err := openJob(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return noJob(id)
	case errors.Is(err, ErrBusy):
		return &cli.Error{Err: fmt.Errorf("job %s: %w", id, ErrBusy), Hint: "end it first, with Ctrl-C or a SIGTERM", Code: cli.ExitRefused}
	case err != nil:
		return err
	}
	return j.discard(ctx)
}

func noJob(id string) error {
	return &cli.Error{Err: fmt.Errorf("job %q: %w", id, ErrNoJob), Hint: "flatimg jobs lists them; --area DIR looks in another area", Code: cli.ExitUsage}
}

// discard removes what the job has sent, and the job itself. When the server
// can't be asked, the job stays.
func (j *job) discard(ctx context.Context) error {
	for _, f := range j.record.Files {
		if f.State == nil || j.record.Request.Import {
			continue
		}
		o := j.record.Access.options()
		o.Force, o.Resume, o.Retries, o.Name = true, f.State, -1, f.As
		up, err := schemes.Open(ctx, f.Dest, o)
		if err == nil {
			err = up.Close(false)
		}
		if err != nil {
			return errors.Join(&cli.Error{
				Err:  fmt.Errorf("job %s: what it has sent to %s could not be removed: %w", j.id(), f.Dest, err),
				Hint: "try again later; to leave it there: rm -r " + j.dir,
				Code: cli.ExitCode(err),
			}, j.close())
		}
	}
	return j.remove()
}
