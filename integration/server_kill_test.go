package integration

import (
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// stepLimit is more than any single run takes, on a machine that is busy.
const stepLimit = 2 * time.Minute

// startUntil starts an export and waits until it has sent n bytes: then nothing
// passes any more. It says whether that came before the export's end.
func (c *client) startUntil(n int64, args ...string) (*rig.Process, bool) {
	c.t.Helper()
	c.s.cutter.StallAfter(n)
	c.t.Cleanup(func() { c.s.cutter.Stall(false) })
	p := c.start(args...)
	rig.Eventually(c.t, stepLimit, "bytes are sent", func() bool { return c.s.cutter.Stalled() || !p.Running() })
	return p, p.Running()
}

// testKilled kills the program (kill -9), time after time, and then lets it go on.
func testKilled(t *testing.T, s *exportServer) {
	host := s.host
	if s.cutter != nil {
		host = s.cutter.Address
	}
	c := s.client(t, host, "killed")
	for range points {
		var p *rig.Process
		if s.cutter != nil {
			p, _ = c.startUntil(1 + rand.Int64N(suiteData))
		} else {
			p = c.start()
			// There is nothing to see from outside; a run takes about as long.
			time.Sleep(rand.N(100 * time.Millisecond))
		}
		p.Signal(syscall.SIGKILL)
		if s.cutter != nil {
			s.cutter.Stall(false)
		}
		p.Wait(t, stepLimit)
		c.checkAbsentOrComplete()
		c.checkRecords()
		if s.named && s.file(t, c.name) != "" {
			break
		}
	}
	c.finish()
}

// testJobs lists an export while it runs and after it was killed, and removes it
// with what it has sent.
func testJobs(t *testing.T, s *exportServer) {
	c := s.client(t, s.cutter.Address, "given-up")
	p, running := c.startUntil(suiteData / 2)
	if !running {
		t.Fatalf("ended: %s", p.Output())
	}
	jobs := c.listed()
	if len(jobs) != 1 || !jobs[0].Running || jobs[0].Image != c.image || jobs[0].URL != c.url(c.name) {
		t.Fatalf("jobs: %+v", jobs)
	}
	if r := c.run("jobs", "--remove", jobs[0].ID); r.Code != exitRefused {
		t.Errorf("removed while it runs: exit code %d\n%s", r.Code, r.Stderr)
	}
	p.Signal(syscall.SIGKILL)
	s.cutter.Stall(false)
	p.Wait(t, stepLimit)
	c.checkAbsentOrComplete()
	c.checkRecords()
	if jobs = c.listed(); len(jobs) != 1 || jobs[0].Running {
		t.Fatalf("jobs: %+v", jobs)
	}
	if r := c.run("jobs"); r.Code != 0 || !strings.Contains(r.Stdout, "interrupted") || !strings.Contains(r.Stdout, jobs[0].ID) {
		t.Errorf("exit code %d\n%s%s", r.Code, r.Stdout, r.Stderr)
	}
	if r := c.run("jobs", "--remove", jobs[0].ID); r.Code != 0 {
		t.Errorf("remove: exit code %d\n%s", r.Code, r.Stderr)
	}
	c.checkAbsent()
	c.checkNoJob()
}

// testServerKilled kills the server, and goes on when it is there again.
func testServerKilled(t *testing.T, s *exportServer) {
	if s.stop == nil {
		return
	}
	c := s.client(t, s.cutter.Address, "orphan", "--retries=1")
	p, running := c.startUntil(suiteData / 2)
	if !running {
		t.Fatalf("ended: %s", p.Output())
	}
	s.stop(t)
	s.cutter.Stall(false)
	begin := time.Now()
	code := p.Wait(t, stepLimit)
	if took := time.Since(begin); code != exitServer || took > promptly {
		t.Errorf("exit code %d after %v, want %d\n%s", code, took, exitServer, p.Output())
	}
	s.restart(t)
	c.checkAbsent()
	c.finish()
}

// testInterrupted ends an export by Ctrl-C, while the server answers and while
// it does not, and goes on.
func testInterrupted(t *testing.T, s *exportServer) {
	c := s.client(t, s.cutter.Address, "interrupted")
	for _, hangs := range []bool{false, true} {
		p, running := c.startUntil(suiteData/4, "--bwlimit=30M")
		if !running {
			t.Fatalf("ended: %s", p.Output())
		}
		begin := time.Now()
		syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGINT)
		if !hangs { // after the signal, before which it could come to its end
			s.cutter.Stall(false)
		}
		code := p.Wait(t, stepLimit)
		if took := time.Since(begin); code != exitInterrupted || took > promptly {
			t.Errorf("server hangs %v: exit code %d after %v, want %d\n%s", hangs, code, took, exitInterrupted, p.Output())
		}
		s.cutter.Stall(false)
		c.checkAbsent()
		c.checkRecords()
	}
	c.finish()
}
