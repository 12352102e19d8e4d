package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"flatimg/integration/rig"
)

// serverKind is a kind of server that images are exported to and imported from,
// and what it can do.
type serverKind struct {
	name string
	// start starts one; it ends with the test.
	start func(t *testing.T) *exportServer
	abilities
}

// abilities are those of a server together with the program's way to use it.
type abilities struct {
	// resumes: a later run goes on with what an earlier one has sent, in steps
	// that are smaller than the suite's image.
	resumes bool
	// sparse: holes of a raw file are holes there.
	sparse bool
	// named: files have names, else there is one disk.
	named bool
	// checksum: the server tells one of what has arrived; sums: and of what is
	// fetched, later.
	checksum, sums bool
	// files: only what is a file here can be sent.
	files bool
	// atomic: of several exports without --force one gets the name.
	atomic bool
}

// serverKinds are all that the suite runs against.
var serverKinds = []serverKind{
	{"file", startFile, abilities{named: true, sparse: true, atomic: true}},
	{"device", startDevice, abilities{}},
	{"sftp", startSFTP, abilities{named: true, resumes: true, sparse: true, checksum: true, sums: true, atomic: true}},
	{"rsync", startRsync, abilities{named: true, resumes: true, sparse: true, checksum: true, files: true}},
	{"rsync+ssh", startRsyncSSH, abilities{named: true, resumes: true, sparse: true, checksum: true, files: true}},
	{"nginx", startNginx, abilities{named: true}},
	{"apache", startApache, abilities{named: true, sparse: true}},
	{"s3", startS3, abilities{named: true, resumes: true, checksum: true, atomic: true}},
	// The registry forgets what was cut within a request.
	{"oci", startOCI, abilities{named: true, checksum: true}},
	{"nbdkit", startNbdkit, abilities{sparse: true}},
	{"qemu-nbd", startQemuNbd, abilities{sparse: true}},
	{"imageio", startImageio, abilities{sparse: true, checksum: true}},
	{"glance", startGlance, abilities{named: true, checksum: true, sums: true}},
}

// scenario is one test of the suite.
type scenario struct {
	name string
	run  func(t *testing.T, s *exportServer)
	// short: also with -short, where the program is slow.
	short bool
	// remote: only for what is reached over a line.
	remote bool
}

// scenarios run one after the other against each server.
var scenarios = []scenario{
	{name: "Whole", run: testWhole, short: true},
	{name: "QCOW2", run: testQCOW2},
	{name: "Stream", run: testStream, short: true},
	{name: "Taken", run: testTaken, short: true},
	{name: "Refused", run: testRefused, short: true},
	{name: "Cut", run: testCut, remote: true},
	{name: "CutOnce", run: testCutOnce, short: true, remote: true},
	{name: "Resume", run: testResume, short: true, remote: true},
	{name: "Changed", run: testChanged, remote: true},
	{name: "Killed", run: testKilled},
	{name: "Jobs", run: testJobs, short: true, remote: true},
	{name: "ServerKilled", run: testServerKilled, remote: true},
	{name: "Interrupted", run: testInterrupted, remote: true},
	{name: "Concurrent", run: testConcurrent, short: true},
	{name: "Import", run: testImport, short: true},
	{name: "ImportCut", run: testImportCut, remote: true},
	{name: "Delta", run: testDelta},
	{name: "Batch", run: testBatch},
}

// suiteChain is the image of the suite: holes between data, and several parts
// of what servers take at a time.
var suiteChain = rig.Chain{Name: "suite", Size: 40 << 20, Seed: 7, Layers: []rig.Layer{
	{Writes: []rig.Write{{Off: 0, Len: 9 << 20}, {Off: 12<<20 + 512, Len: 3 << 20}, {Kind: rig.Compressed, Off: 38 << 20, Len: 1 << 20}}},
	{Writes: []rig.Write{{Off: 4 << 20, Len: 1 << 20}, {Kind: rig.Zero, Off: 8 << 20, Len: 2 << 20}, {Off: 20 << 20, Len: 8<<20 + 100}, {Off: 40<<20 - 700, Len: 700}}},
}}

// suiteData in bytes is about what suiteChain has of data.
const suiteData = 20 << 20

// TestServers runs all scenarios against all servers. What must hold after each:
// the final name is not there, or what it names is complete.
func TestServers(t *testing.T) {
	im := suiteChain.Build(t, t.TempDir())
	for _, kind := range serverKinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			s := kind.start(t)
			s.serverKind, s.image = kind, im
			if s.host != "" {
				s.cutter = rig.NewCutter(t, s.host)
			}
			for _, c := range scenarios {
				if testing.Short() && !c.short || c.remote && s.host == "" {
					continue
				}
				t.Run(c.name, func(t *testing.T) { c.run(t, s) })
			}
		})
	}
}

// exportServer is a server of the suite.
type exportServer struct {
	serverKind
	image *rig.Image
	// host is where it listens, host:port; empty for what is on this machine.
	host string
	// cutter is a proxy in front of host; nil without.
	cutter *rig.Cutter
	// to says how it is reached by way of host, which may be the cutter's.
	to func(host string) access
	// secrets must never be shown or recorded.
	secrets []string

	// file returns the path of the complete file under a name; empty: there is
	// none. Of a disk it is that of the disk.
	file func(t *testing.T, name string) string
	// left returns what lies there beside whole files under their names.
	left func(t *testing.T) []string
	// remove removes the file under a name.
	remove func(t *testing.T, name string)
	// stop kills the server, start starts it again with what it had.
	stop, restart func(t *testing.T)

	// Destinations that must be refused; nil where there is no such.
	denied, missing, full, readOnly, tooLarge func(t *testing.T) access
	// vague: the server does not always tell that it is full.
	vague bool
	// badURL is one that can't be right.
	badURL string
}

// access is how files at a server are named and reached.
type access struct {
	// url of a file under its name; a disk has one whatever the name.
	url  func(name string) string
	args []string
	env  []string
}

// under is the url of files whose URLs have a beginning in common.
func under(prefix string) func(string) string {
	return func(name string) string { return prefix + name }
}

// only is the url of a disk.
func only(url string) func(string) string { return func(string) string { return url } }

// folder makes file, left and remove for a server whose files lie in dir.
func (s *exportServer) folder(dir string) {
	s.file = func(t *testing.T, name string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return ""
		}
		return path
	}
	s.left = func(t *testing.T) []string {
		t.Helper()
		var left []string
		for _, pattern := range []string{".*", "*/.*"} {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, found...)
		}
		return left
	}
	s.remove = func(t *testing.T, name string) {
		t.Helper()
		os.Remove(filepath.Join(dir, name))
	}
}

// disk makes file, left and remove for a server that has one disk.
func (s *exportServer) disk(path string) {
	s.file = func(*testing.T, string) string { return path }
	s.left = func(*testing.T) []string { return nil }
	s.tooLarge = func(*testing.T) access { return s.to(s.host) }
	// Something else than what comes next.
	s.remove = func(t *testing.T, _ string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		garbage := slices.Repeat([]byte{0xA5}, 1<<20)
		for off := int64(0); off < suiteChain.Size; off += int64(len(garbage)) {
			if _, err := f.WriteAt(garbage, off); err != nil {
				t.Fatal(fmt.Errorf("write garbage to the disk: %w", err))
			}
		}
	}
}
