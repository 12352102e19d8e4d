package integration

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flatimg/integration/rig"
)

// client is a user who brings one file to a server, or back: each run of the
// program is with the same arguments, in an area of its own.
type client struct {
	access
	t    *testing.T
	s    *exportServer
	area string
	// image that is exported, and name of the file at the server.
	image, name string
	// want is what the image holds.
	want *rig.Content
	// unpack: the file is a qcow2.
	unpack bool
}

// client returns one who exports the suite's image, by way of host. After the
// test the file is complete or not there, nothing else is there, and the
// server has nothing any more.
func (s *exportServer) client(t *testing.T, host, name string, args ...string) *client {
	t.Helper()
	s.remove(t, name)
	c := s.sameFile(t, host, name, args...)
	t.Cleanup(func() {
		c.checkAbsentOrComplete()
		if s.named {
			s.remove(t, name)
		}
		s.checkLeft(t)
	})
	return c
}

// checkLeft fails the test when something stays at the server. It waits for what
// the server removes by itself, when it has seen that a client has gone.
func (s *exportServer) checkLeft(t *testing.T) {
	t.Helper()
	var left []string
	defer func() {
		if len(left) > 0 {
			t.Logf("left over at the server: %q", left)
		}
	}()
	rig.Eventually(t, soon, "nothing is left over at the server", func() bool {
		left = s.left(t)
		return len(left) == 0
	})
}

// sameFile returns one who finds a file there; another client looks after it.
func (s *exportServer) sameFile(t *testing.T, host, name string, args ...string) *client {
	t.Helper()
	c := &client{access: s.to(host), t: t, s: s, area: t.TempDir(), image: s.image.Top, name: name, want: s.image.Want}
	c.args = append(slices.Clone(c.args), args...)
	return c
}

// command of the program in the client's environment.
func (c *client) command(args ...string) *exec.Cmd {
	cmd := rig.Command(rig.Binary(c.t), args...)
	cmd.Env = append(os.Environ(), "FLATIMG_AREA="+c.area, "HOME="+c.area)
	cmd.Env = append(cmd.Env, c.env...)
	return cmd
}

// run runs the program and looks for secrets in what it says.
func (c *client) run(args ...string) rig.Result {
	c.t.Helper()
	r := rig.RunCommand(c.t, c.command(args...))
	c.checkSecrets("the output", r.Stdout+r.Stderr)
	return r
}

func (c *client) checkSecrets(where, text string) {
	c.t.Helper()
	for _, secret := range append([]string{"secret-of-mine"}, c.s.secrets...) {
		if strings.Contains(text, secret) {
			c.t.Errorf("a secret is in %s:\n%s", where, text)
		}
	}
}

// exportArgs are the arguments of an export; more of them come first.
func (c *client) exportArgs(args ...string) []string {
	all := append([]string{"export", "--format", "raw", "--json"}, c.args...)
	return append(append(all, args...), c.image, c.url(c.name))
}

// export runs an export, which must end with the exit code.
func (c *client) export(code int, args ...string) outcome {
	c.t.Helper()
	return c.outcome(code, c.run(c.exportArgs(args...)...))
}

// start starts an export that is ended with the test.
func (c *client) start(args ...string) *rig.Process {
	c.t.Helper()
	return rig.Start(c.t, c.command(c.exportArgs(args...)...))
}

// outcome is what the program has said of one run, as JSON.
type outcome struct {
	rig.Result
	Report struct {
		URL      string
		Size     int64
		Read     int64   `json:"bytes_read"`
		Sent     int64   `json:"bytes_sent"`
		Before   int64   `json:"bytes_sent_before"`
		Holes    int64   `json:"bytes_skipped_as_holes"`
		Seconds  float64 `json:"seconds"`
		SHA256   string
		Verified string
	}
	Error struct {
		Error string
		Hint  string
		Code  int `json:"exit_code"`
	}
	// Events are their names, in order.
	Events []string
}

// outcome parses what a run has printed.
func (c *client) outcome(code int, r rig.Result) outcome {
	c.t.Helper()
	o := outcome{Result: r}
	for line := range strings.Lines(r.Stdout) {
		var event struct{ Event string }
		err := json.Unmarshal([]byte(line), &event)
		switch {
		case err != nil:
		case event.Event == "report":
			err = json.Unmarshal([]byte(line), &o.Report)
		case event.Event == "error":
			err = json.Unmarshal([]byte(line), &o.Error)
		}
		if err != nil {
			c.t.Fatalf("%v: %s", err, line)
		}
		o.Events = append(o.Events, event.Event)
	}
	if r.Code != code || code == 0 && o.Report.URL == "" || code != 0 && o.Report.URL != "" {
		c.t.Fatalf("exit code %d, want %d\n%s%s", r.Code, code, r.Stdout, r.Stderr)
	}
	if code != 0 && code != exitPartial && o.Error.Code != code {
		c.t.Errorf("the error tells exit code %d, want %d", o.Error.Code, code)
	}
	return o
}

// checkComplete fails the test unless the file is there and complete.
func (c *client) checkComplete() {
	c.t.Helper()
	path := c.s.file(c.t, c.name)
	if path == "" {
		c.t.Fatalf("%s is not there", c.name)
	}
	c.compare(path)
}

func (c *client) compare(path string) {
	c.t.Helper()
	if c.unpack {
		path = toRaw(c.t, path)
	}
	rig.CompareContent(c.t, path, c.want)
}

// checkAbsentOrComplete is for after failures; a disk may have a part.
func (c *client) checkAbsentOrComplete() {
	c.t.Helper()
	if path := c.s.file(c.t, c.name); path != "" && c.s.named {
		c.compare(path)
	}
}

// checkAbsent fails the test when the file is there.
func (c *client) checkAbsent() {
	c.t.Helper()
	if path := c.s.file(c.t, c.name); path != "" && c.s.named {
		c.t.Errorf("%s is there: %s", c.name, path)
	}
}

// checkNoJob fails the test when the area has anything.
func (c *client) checkNoJob() {
	c.t.Helper()
	if jobs := c.jobFolders(); len(jobs) > 0 {
		c.t.Errorf("in the area: %q", jobs)
	}
}

func (c *client) jobFolders() []string {
	c.t.Helper()
	jobs, err := filepath.Glob(filepath.Join(c.area, "flatimg-*"))
	if err != nil {
		c.t.Fatal(err)
	}
	return jobs
}

// checkRecords looks for secrets in all files of the area but images.
func (c *client) checkRecords() {
	c.t.Helper()
	filepath.WalkDir(c.area, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".json") {
			c.checkSecrets(path, readFile(c.t, path))
		}
		return nil
	})
}

// listed returns the jobs that the program lists.
func (c *client) listed() []job {
	c.t.Helper()
	r := c.run("jobs", "--json")
	var jobs []job
	if err := json.Unmarshal([]byte(r.Stdout), &jobs); err != nil {
		c.t.Fatalf("jobs: %v\n%s%s", err, r.Stdout, r.Stderr)
	}
	return jobs
}

// job is one of the list.
type job struct {
	ID, Image, URL string
	Running        bool
}
