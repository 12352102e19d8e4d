package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"flatimg/integration/rig"
)

// url returns the sftp:// URL of a path on the server.
func url(s *rig.SSHServer, path string) string {
	return fmt.Sprintf("sftp://%s@%s:%d%s", s.User, s.Host, s.Port, path)
}

// exportTo returns the arguments of an export to the server through area.
func exportTo(s *rig.SSHServer, area string, args ...string) []string {
	return append([]string{"export", "--ssh-command", s.Command, "--area", area}, args...)
}

func TestExportToSFTP(t *testing.T) {
	server := rig.Sshd(t)
	im := exportChain.Build(t, t.TempDir())
	area, dir := t.TempDir(), filepath.Join(t.TempDir(), "it's a folder")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web.raw", "web.qcow2"} {
		r := rig.Flatimg(t, exportTo(server, area, im.Top, url(server, strings.ReplaceAll(dir, " ", "%20")+"/"+name))...)
		if r.Code != 0 || !strings.Contains(r.Stderr, "SHA-256 on the server") {
			t.Fatalf("exit code %d\n%s", r.Code, r.Stderr)
		}
		checkExported(t, im, strings.TrimPrefix(filepath.Ext(name), "."), filepath.Join(dir, name))
		if usage := diskUsage(t, filepath.Join(dir, name)); usage > 8<<20 {
			t.Errorf("%s takes %d bytes: its holes were filled", name, usage)
		}
	}
	checkNames(t, dir, "web.qcow2", "web.raw")
	checkNames(t, area)

	failSFTP(t, server, area, exitExists, "--force", im.Top, url(server, dir+"/web.raw"))
	rig.MustFlatimg(t, exportTo(server, area, "--force", "--format", "qcow2", im.Top, url(server, dir+"/web.raw"))...)
	rig.Compare(t, dir+"/web.raw", dir+"/web.qcow2")

	// A folder as destination, and ssh and the area from the environment.
	t.Setenv("FLATIMG_SSH", server.Command)
	t.Setenv("FLATIMG_AREA", area)
	sub := filepath.Join(t.TempDir(), "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	rig.MustFlatimg(t, "export", im.Top, fmt.Sprintf("sftp://%s%s", server.Host, sub))
	rig.MustFlatimg(t, "export", "--keep-area", "--format", "qcow2", im.Top, fmt.Sprintf("sftp://%s%s/", server.Host, sub))
	checkNames(t, sub, "web.qcow2", "web.raw")
	if kept, _ := filepath.Glob(area + "/flatimg-*/web.qcow2"); len(kept) != 1 {
		t.Errorf("kept: %q", kept)
	}
}

// failSFTP runs an export that must fail and leave nothing in the area.
func failSFTP(t *testing.T, s *rig.SSHServer, area string, code int, text string, args ...string) {
	t.Helper()
	failExport(t, code, text, exportTo(s, area, args...)[1:]...)
	checkNames(t, area)
}

// TestExportToAccountWithoutShell can verify only by reading back what was sent.
func TestExportToAccountWithoutShell(t *testing.T) {
	server := rig.Sshd(t)
	onlySFTP(t, server)
	im := exportChain.Build(t, t.TempDir())
	dest := filepath.Join(t.TempDir(), "web.qcow2")
	for _, c := range []struct {
		flag, verified string
	}{{"--force", "not verified"}, {"--verify", "verified: read back"}} {
		r := rig.Flatimg(t, exportTo(server, t.TempDir(), "--force", c.flag, im.Top, url(server, dest))...)
		if r.Code != 0 || !strings.Contains(r.Stderr, c.verified) {
			t.Errorf("exit code %d\n%s", r.Code, r.Stderr)
		}
		checkExported(t, im, "qcow2", dest)
	}
}

// onlySFTP forces the sftp subsystem on everybody who logs in.
func onlySFTP(t *testing.T, s *rig.SSHServer) {
	t.Helper()
	path := filepath.Join(serverDir(s), "authorized_keys")
	keys, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append([]byte(`restrict,command="internal-sftp" `), keys...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serverDir is the folder with the server's configuration: that of ssh's, which
// the command names last.
func serverDir(s *rig.SSHServer) string {
	words := strings.Fields(s.Command)
	return filepath.Dir(words[len(words)-1])
}

func TestExportSFTPFails(t *testing.T) {
	server := rig.Sshd(t)
	im := exportChain.Build(t, t.TempDir())
	area, dir := t.TempDir(), t.TempDir()
	full := rig.TmpFS(t, 1<<20)
	// The server's port, but not its keys.
	stranger := *server
	stranger.Command = "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o IdentityFile=/nowhere"
	unknown := *server
	unknown.Command = "ssh -F none -o BatchMode=yes -o UserKnownHostsFile=/dev/null"
	nobody := *server
	nobody.Port = 1

	for _, c := range []struct {
		server *rig.SSHServer
		code   int
		text   string
		dest   string
	}{
		{server, exitServer, "mkdir -p", url(server, dir+"/missing/web.raw")},
		{server, exitUsage, "not a regular file", url(server, "/dev/null")},
		{server, exitNoSpace, "no space left", url(server, full+"/web.raw")},
		{server, exitServer, "connect", url(&nobody, dir+"/web.raw")},
		{&stranger, exitServer, "Permission denied", url(server, dir+"/web.raw")},
		{&unknown, exitServer, "Host key verification failed", url(server, dir+"/web.raw")},
		{server, exitUsage, "password", "sftp://me:secret@127.0.0.1/x"},
		{server, exitUsage, "path", "sftp://127.0.0.1"},
	} {
		failSFTP(t, c.server, area, c.code, c.text, im.Top, c.dest)
	}
	none := *server
	none.Command = "no-such-ssh"
	failSFTP(t, &none, area, exitServer, "no-such-ssh", im.Top, url(server, dir+"/web.raw"))
	checkNames(t, dir)
	checkNames(t, full)
}

// TestExportSFTPServerDies kills the server's end of the connection, or all of
// the server.
func TestExportSFTPServerDies(t *testing.T) {
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprintf("all %v", all), func(t *testing.T) {
			server := rig.Sshd(t)
			big := bigRaw(t, filepath.Join(t.TempDir(), "big.raw"), 256<<20)
			area, dir := t.TempDir(), t.TempDir()
			// Slowly, so that it does not end before it is looked at.
			p := rig.StartFlatimg(t, exportTo(server, area, "--bwlimit", "64M", big, url(server, dir+"/big.raw"))...)
			waitSending(t, p, dir)
			pids := sessions(t, server)
			if all {
				server.Stop(t)
			}
			for _, pid := range pids {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			want := map[bool]int{false: 0, true: exitServer}[all]
			if code := p.Wait(t, time.Minute); code != want {
				t.Errorf("exit code %d, want %d", code, want)
			}
			if all {
				if _, err := os.Stat(dir + "/big.raw"); err == nil {
					t.Error("a partial file was published")
				}
				return
			}
			rig.Compare(t, dir+"/big.raw", big)
			checkNames(t, dir, "big.raw")
			checkNames(t, area)
		})
	}
}

// sessions returns the processes of the server's connections.
func sessions(t *testing.T, s *rig.SSHServer) []int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(serverDir(s), "sshd.pid"))
	if err != nil {
		t.Fatal(err)
	}
	listener := strings.TrimSpace(string(b))
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// proc(5): pid (name) state ppid; a name can hold anything.
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) > 1 && fields[1] == listener {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		t.Fatal("the server has no connection")
	}
	return pids
}

// waitSending waits until a partial file in dir has data.
func waitSending(t *testing.T, p *rig.Process, dir string) {
	t.Helper()
	rig.Eventually(t, time.Minute, "a partial file in "+dir, func() bool {
		if !p.Running() {
			t.Fatalf("ended before: %s", p.Output())
		}
		parts, _ := filepath.Glob(dir + "/.*.part-*")
		return len(parts) == 1 && diskUsage(t, parts[0]) > 0
	})
}

// TestExportSFTPInterrupted ends an export while it sends, by what Ctrl-C sends:
// a signal to ssh, too. What was sent stays for the next run.
func TestExportSFTPInterrupted(t *testing.T) {
	server := rig.Sshd(t)
	big := bigRaw(t, filepath.Join(t.TempDir(), "big.raw"), 256<<20)
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprintf("server hangs %v", hangs), func(t *testing.T) {
			area, dir := t.TempDir(), t.TempDir()
			p := rig.StartFlatimg(t, exportTo(server, area, "--bwlimit", "20M", big, url(server, dir+"/big.raw"))...)
			waitSending(t, p, dir)
			if hangs {
				for _, pid := range sessions(t, server) {
					stopTree(t, pid)
				}
			}
			begin := time.Now()
			syscall.Kill(-p.Cmd.Process.Pid, syscall.SIGINT)
			if code := p.Wait(t, time.Minute); code != exitInterrupted {
				t.Errorf("exit code %d, want %d\n%s", code, exitInterrupted, p.Output())
			}
			t.Logf("ended after %v", time.Since(begin))
			if _, err := os.Stat(dir + "/big.raw"); err == nil {
				t.Error("a partial file was published")
			}
			if !hangs {
				rig.MustFlatimg(t, "jobs", "--area", area, "--remove-all")
				checkNames(t, area)
				checkNames(t, dir)
			}
		})
	}
}

// stopTree stops a process for the rest of the test.
func stopTree(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Kill(pid, syscall.SIGCONT)
	})
}
