package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// fetch imports the client's file to path; more arguments come first.
func (c *client) fetch(code int, path string, args ...string) outcome {
	c.t.Helper()
	all := append([]string{"import", "--json"}, c.importArgs()...)
	return c.outcome(code, c.run(append(append(all, args...), c.url(c.name), path)...))
}

// importArgs are those of exports without what is for exports only.
func (c *client) importArgs() []string {
	var args []string
	for _, arg := range c.args {
		if arg != "--force" {
			args = append(args, arg)
		}
	}
	return args
}

func testImport(t *testing.T, s *exportServer) {
	c := s.client(t, s.host, "there")
	c.export(0)
	dir := t.TempDir()
	path := filepath.Join(dir, "back.raw")

	o := c.fetch(exitServer, path, "--sha256", strings.Repeat("0", 64))
	if !strings.Contains(o.Error.Error, "SHA-256") {
		t.Errorf("the error is: %s", o.Error.Error)
	}
	checkNames(t, dir)
	c.checkNoJob()

	o = c.fetch(0, path)
	rig.CompareContent(t, path, c.want)
	if s.host != "" && o.Report.SHA256 != sumOf(c.want) {
		t.Errorf("SHA-256 is %q", o.Report.SHA256)
	}
	if s.sums && o.Report.Verified == "" {
		t.Error("not verified")
	}
	// A device does not tell what its holes are.
	if usage := diskUsage(t, path); s.name != "device" && usage > suiteData+4<<20 {
		t.Errorf("it takes %d bytes: its holes were filled", usage)
	}

	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.fetch(exitExists, path)
	if readFile(t, path) != "old" {
		t.Error("the file was replaced")
	}
	c.fetch(0, path, "--force", "--sha256", sumOf(c.want))
	rig.CompareContent(t, path, c.want)
	checkNames(t, dir, "back.raw")
	c.checkNoJob()

	packed := filepath.Join(dir, "back.qcow2")
	c.fetch(0, packed, "--source-format=raw")
	rig.CompareContent(t, toRaw(t, packed), c.want)
}

// testImportCut cuts the connection of each run, until one succeeds.
func testImportCut(t *testing.T, s *exportServer) {
	s.client(t, s.host, "far").export(0)
	// Not just now: a file that changes may look the same within a second, and
	// the program goes on with no such file.
	before := time.Now().Add(-time.Hour)
	if err := os.Chtimes(s.file(t, "far"), before, before); err != nil {
		t.Fatal(err)
	}
	c := s.sameFile(t, s.cutter.Address, "far", "--retries=0")
	dir := t.TempDir()
	path := filepath.Join(dir, "back.raw")
	defer s.cutter.CutRepliesAfter()
	cuts := s.cutPoints()
	done := false
	for _, n := range cuts {
		s.cutter.CutRepliesAfter(n)
		r := c.run(append(append([]string{"import", "--json"}, c.importArgs()...), c.url(c.name), path)...)
		if done = r.Code == 0; done {
			break
		}
		c.outcome(exitServer, r)
		checkNames(t, dir)
	}
	s.cutter.CutRepliesAfter()
	if !done {
		c.fetch(0, path)
	}
	rig.CompareContent(t, path, c.want)
	c.checkNoJob()
	if t.Failed() {
		t.Logf("cut after %v bytes", cuts)
	}

	// One run that goes on by itself.
	other := filepath.Join(dir, "other.raw")
	c.args = s.to(s.cutter.Address).args
	s.cutter.CutRepliesAfter(suiteData/3, suiteData/4)
	c.fetch(0, other)
	rig.CompareContent(t, other, c.want)
}

// testDelta brings the changes above a layer to a server, and puts them onto the
// layer here.
func testDelta(t *testing.T, s *exportServer) {
	c := s.client(t, s.host, "delta")
	o := c.export(0, "--since=0", "--format=qcow2")
	if full := s.image.Want.Size(); o.Report.Read >= suiteData*3/4 || o.Report.Size >= full {
		t.Errorf("the delta has %d bytes of data", o.Report.Read)
	}
	path := filepath.Join(t.TempDir(), "again.qcow2")
	c.fetch(0, path, "--onto", s.image.Paths[0], "--source-format=qcow2")
	rig.CompareContent(t, toRaw(t, path), c.want)
	if usage := diskUsage(t, path); usage > suiteData*3/4 {
		t.Errorf("the overlay takes %d bytes", usage)
	}
	s.remove(t, c.name) // which is no complete image
}

// testBatch exports several images to a folder; one is damaged.
func testBatch(t *testing.T, s *exportServer) {
	if !s.named {
		return
	}
	dir := t.TempDir()
	extension := ".raw"
	if s.name == "oci" || s.name == "glance" {
		extension = "" // names of images have none
	}
	var images []string
	wants := map[string]*rig.Content{}
	for i, name := range []string{"first", "second", "third"} {
		im := rig.Chain{Name: name, Size: 4 << 20, Seed: uint64(i), Layers: []rig.Layer{
			{Writes: []rig.Write{{Off: int64(i) << 20, Len: 1 << 20}}},
		}}.Build(t, dir)
		images = append(images, im.Top)
		wants[name+extension] = im.Want
	}
	if err := os.WriteFile(images[1], []byte("QFI\xfb and then nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	delete(wants, "second"+extension)
	bad := s.client(t, s.host, "second"+extension)
	args := append([]string{"export", "--json", "--format=raw", "--jobs=2"}, bad.args...)
	r := bad.run(append(append(args, images...), bad.url(""))...)
	if r.Code != exitPartial || !strings.Contains(r.Stderr, "1 of 3") {
		t.Errorf("exit code %d, want %d\n%s%s", r.Code, exitPartial, r.Stdout, r.Stderr)
	}
	bad.checkAbsent()
	bad.checkNoJob()
	for name, want := range wants {
		c := s.sameFile(t, s.host, name)
		c.want = want
		c.checkComplete()
		s.remove(t, name)
	}
}
