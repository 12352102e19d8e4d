package integration

import (
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"flatimg/integration/rig"
)

// testWhole exports a raw file, with what the program does by default and with
// all that it can verify.
func testWhole(t *testing.T, s *exportServer) {
	c := s.client(t, s.host, "whole")
	o := c.export(0)
	c.checkComplete()
	c.checkReport(o)
	if s.checksum != (o.Report.Verified != "") {
		t.Errorf("verified: %q; the server tells a checksum: %v", o.Report.Verified, s.checksum)
	}
	path := s.file(t, c.name)
	// Some file systems keep a few blocks more.
	if usage := diskUsage(t, path); s.sparse && usage > o.Report.Read+2<<20 {
		t.Errorf("%s takes %d bytes for %d of data: its holes were filled", path, usage, o.Report.Read)
	}
	c.checkNoJob()

	o = c.export(0, "--verify", "--force")
	c.checkComplete()
	c.checkReport(o)
	if s.host != "" && o.Report.Verified == "" {
		t.Error("not verified")
	}
}

// checkReport checks what is told of an export of the suite's image.
func (c *client) checkReport(o outcome) {
	c.t.Helper()
	r := o.Report
	if r.URL == "" || r.Seconds <= 0 || r.Size != c.want.Size() || r.Read < suiteData*9/10 || r.Read > suiteData*3/2 || r.Holes != r.Size-r.Read {
		c.t.Errorf("report: %+v", r)
	}
	if c.s.host != "" && r.Sent+r.Before != r.Read {
		c.t.Errorf("%d bytes were sent and %d before, of %d", r.Sent, r.Before, r.Read)
	}
	if want := sumOf(c.want); c.s.host != "" && r.SHA256 != want {
		c.t.Errorf("SHA-256 is %q, want %s", r.SHA256, want)
	}
	if len(o.Events) < 2 || o.Events[0] != "stage" || o.Events[len(o.Events)-1] != "report" {
		c.t.Errorf("events: %q", o.Events)
	}
}

// sumOf returns the SHA-256 of a raw file with that content.
func sumOf(content *rig.Content) string {
	h := sha256.New()
	io.Copy(h, io.NewSectionReader(content, 0, content.Size())) // which never fails
	return fmt.Sprintf("%x", h.Sum(nil))
}

func testQCOW2(t *testing.T, s *exportServer) {
	c := s.client(t, s.host, "packed", "--format", "qcow2")
	c.unpack = true
	c.export(0, "--verify")
	c.checkComplete()
	c.export(0, "--force", "--format", "qcow2,compression=zstd")
	c.checkComplete()
}

// toRaw returns a raw file of what a qcow2 holds.
func toRaw(t *testing.T, path string) string {
	t.Helper()
	raw := filepath.Join(t.TempDir(), "raw")
	rig.Run(t, "qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", path, raw)
	return raw
}

// testStream sends the view without a file in the area.
func testStream(t *testing.T, s *exportServer) {
	c := s.client(t, s.host, "streamed")
	if s.files {
		c.export(exitUsage, "--stream")
		return
	}
	c.checkReport(c.export(0, "--stream"))
	c.checkComplete()
	c.checkNoJob()
}

// testTaken exports to a name that is taken.
func testTaken(t *testing.T, s *exportServer) {
	if !s.named {
		return
	}
	c := s.client(t, s.host, "taken")
	c.export(0)
	if o := c.export(exitExists); o.Error.Hint == "" {
		t.Errorf("no hint: %s", o.Error.Error)
	}
	c.checkComplete()
	c.checkNoJob()

	// Another content in its place, at once: what is cut before leaves the old.
	c.image = s.image.Paths[0]
	if s.host != "" {
		through := *c
		through.access = s.to(s.cutter.Address)
		s.cutter.CutAfter(suiteData / 4)
		through.export(exitServer, "--force", "--retries=0")
		s.cutter.CutAfter()
		c.checkComplete()
		c = &through
	}
	c.export(0, "--force")
	c.want = s.image.Layers[0]
	c.checkComplete()
	// For the check at the end.
	s.remove(t, c.name)
}

// testConcurrent exports four times to one name at once.
func testConcurrent(t *testing.T, s *exportServer) {
	c := s.client(t, s.host, "wanted")
	var all []*rig.Process
	for range 4 {
		all = append(all, c.start("--retries=2"))
	}
	codes := map[int]int{}
	for _, p := range all {
		codes[p.Wait(t, stepLimit)]++
	}
	switch {
	case s.atomic && (codes[0] != 1 || codes[exitExists] != 3):
		t.Errorf("exit codes and how often: %v", codes)
	case s.name == "device": // one at a time has it
		if codes[0] < 1 {
			t.Errorf("exit codes and how often: %v", codes)
		}
	case codes[0] < 1 || codes[0]+codes[exitExists] != 4:
		t.Errorf("exit codes and how often: %v", codes)
	}
	c.checkComplete()
	c.checkNoJob()
}
