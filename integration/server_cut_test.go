package integration

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"flatimg/integration/rig"
)

// points is how many random moments a connection is cut, or a program killed at.
const points = 10

// cutPoints returns after how many bytes to cut, each counted from the one
// before. Where the program goes on, all of them together reach the end.
func (s *exportServer) cutPoints() []int64 {
	most := int64(suiteData)
	if s.resumes {
		most /= points / 2
	}
	var cuts []int64
	for range points {
		cuts = append(cuts, 1+rand.Int64N(most))
	}
	return cuts
}

// testCut cuts the connection of each run, until one succeeds.
func testCut(t *testing.T, s *exportServer) {
	c := s.client(t, s.cutter.Address, "cut", "--retries=0")
	defer s.cutter.CutAfter()
	cuts := s.cutPoints()
	for _, n := range cuts {
		s.cutter.CutAfter(n)
		r := c.run(c.exportArgs()...)
		if r.Code == 0 {
			break
		}
		c.outcome(exitServer, r)
		if c.checkAbsentOrComplete(); s.named && s.file(t, c.name) != "" {
			break // the answer to the last step was lost
		}
	}
	s.cutter.CutAfter()
	c.finish()
	if t.Failed() {
		t.Logf("cut after %v bytes", cuts)
	}
}

// finish exports unless that is done, and checks the file.
func (c *client) finish() {
	c.t.Helper()
	if !c.s.named || c.s.file(c.t, c.name) == "" {
		c.export(0)
	} else if len(c.listed()) > 0 {
		// It was published, but the program did not get to know it.
		c.export(0, "--force")
	}
	c.checkComplete()
	// A kill before there is a record may leave an empty folder.
	if jobs := c.listed(); len(jobs) > 0 {
		c.t.Errorf("jobs: %+v", jobs)
	}
}

// testCutOnce cuts the connection of one run, which goes on by itself.
func testCutOnce(t *testing.T, s *exportServer) {
	c := s.client(t, s.cutter.Address, "survives")
	defer s.cutter.CutAfter()
	before := s.cutter.Cuts()
	n := 1 + rand.Int64N(suiteData/4)
	s.cutter.CutAfter(n, suiteData/3)
	o := c.export(0)
	c.checkComplete()
	c.checkNoJob()
	if cuts := s.cutter.Cuts() - before; cuts != 2 || !slices.Contains(o.Events, "message") {
		t.Errorf("after %d bytes: %d cuts, and said: %q", n, cuts, o.Events)
	}
}

// fewMore is a number of bytes after which at least one part of the file has
// arrived at any server that can go on, if they are sent one after the other.
const fewMore = 17 << 20

// testResume checks that an interrupted run is gone on with.
func testResume(t *testing.T, s *exportServer) {
	c := s.client(t, s.cutter.Address, "resumed", "--retries=0", "--connections=1")
	if o := c.export(exitRefused, "--resume"); o.Error.Hint == "" {
		t.Errorf("no hint: %s", o.Error.Error)
	}
	if !s.resumes {
		return
	}
	s.cutter.CutAfter(fewMore)
	c.export(exitServer)
	s.cutter.CutAfter()
	c.checkAbsent()
	c.checkRecords()
	o := c.export(0, "--resume")
	if o.Report.Before == 0 || o.Report.Sent >= o.Report.Read {
		t.Errorf("%d bytes were sent, %d before; of %d", o.Report.Sent, o.Report.Before, o.Report.Read)
	}
	c.checkReport(o)
	c.checkComplete()
	c.checkNoJob()
}

// testChanged changes the image after a run that was cut.
func testChanged(t *testing.T, s *exportServer) {
	c := s.client(t, s.cutter.Address, "changed", "--retries=0", "--connections=1")
	im := copyImage(t, s.image)
	c.image = im.Top
	s.cutter.CutAfter(fewMore)
	c.export(exitServer)
	s.cutter.CutAfter()
	im.Write(t, rig.Write{Off: 1 << 20, Len: 4096})
	c.want = im.Want
	if o := c.export(exitRefused, "--resume"); !strings.Contains(o.Error.Error, "changed") {
		t.Errorf("refused for: %s", o.Error.Error)
	}
	c.checkAbsent()
	if o := c.export(0); o.Report.Before != 0 {
		t.Errorf("%d bytes are of the image as it was", o.Report.Before)
	}
	c.checkComplete()
	c.checkNoJob()
}

// copyImage returns an image of its own, to be changed.
func copyImage(t *testing.T, im *rig.Image) *rig.Image {
	t.Helper()
	own := *im
	own.Dir = t.TempDir()
	own.Top = filepath.Join(own.Dir, filepath.Base(im.Top))
	own.Layers = slices.Clone(im.Layers)
	rig.Run(t, "cp", append([]string{"--sparse=always"}, append(slices.Clone(im.Paths), own.Dir)...)...)
	return &own
}
