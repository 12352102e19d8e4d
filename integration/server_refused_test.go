package integration

import (
	"testing"
	"time"
)

// promptly is the time within which the program must come to an end that needs
// no answer, on a machine that is busy; it waits five minutes for an answer that
// does not come.
const promptly = 50 * time.Second

// testRefused exports to where it can't go: nothing may be left anywhere, and
// nobody waits long for it.
func testRefused(t *testing.T, s *exportServer) {
	for _, r := range []struct {
		why  string
		to   func(t *testing.T) access
		code int
		args []string
	}{
		{"denied", s.denied, exitServer, nil},
		{"missing", s.missing, exitServer, nil},
		{"full", s.full, exitNoSpace, nil},
		{"read-only", s.readOnly, exitServer, nil},
		{"bad URL", s.bad, exitUsage, nil},
		{"too large", s.tooLarge, exitNoSpace, []string{"--virtual-size", "1G"}},
	} {
		if r.to == nil {
			continue
		}
		t.Run(r.why, func(t *testing.T) {
			if s.host == "" && r.code == exitServer {
				r.code = map[string]int{"missing": exitUsage, "read-only": exitUsage}[r.why]
			}
			c := s.client(t, s.host, "refused")
			c.access = r.to(t)
			begin := time.Now()
			ran := c.run(c.exportArgs(append(r.args, "--retries=1")...)...)
			if s.vague && r.why == "full" && ran.Code == exitServer {
				r.code = exitServer
			}
			o := c.outcome(r.code, ran)
			if took := time.Since(begin); took > promptly {
				t.Errorf("it took %v", took)
			}
			if o.Error.Hint == "" && r.code != exitServer {
				t.Errorf("no hint: %s", o.Error.Error)
			}
			// What was sent before a disk was full can be gone on with.
			if len(c.jobFolders()) > 0 {
				if r := c.run("jobs", "--remove-all"); r.Code != 0 {
					t.Errorf("jobs --remove-all: exit code %d\n%s", r.Code, r.Stderr)
				}
			}
			// nginx leaves what it had written.
			if s.name != "nginx" || r.why != "full" {
				s.checkLeft(t)
			}
			c.checkAbsent()
			c.checkNoJob()
		})
	}
}

// bad is the access by a URL that can't be right.
func (s *exportServer) bad(*testing.T) access { return access{url: only(s.badURL)} }
