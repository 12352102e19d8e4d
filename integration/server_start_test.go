package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flatimg/integration/rig"
)

// newDisk returns the path of a file that can be the disk of the suite's image.
func newDisk(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	writeZeros(t, path, suiteChain.Size)
	return path
}

// writeZeros makes a file that is one hole.
func writeZeros(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// writeSecret writes the first line of a file that only its user can read.
func writeSecret(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "first-line")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// newFolder makes a folder with the owner of the one it is in.
func newFolder(t *testing.T, in, name string) string {
	t.Helper()
	dir := filepath.Join(in, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	rig.Run(t, "chown", "--reference="+in, dir)
	return dir
}

// fullFolder makes one in which little is free, readOnlyFolder one that can't be
// written to.
func fullFolder(t *testing.T, in string) string {
	t.Helper()
	dir := newFolder(t, in, "full")
	rig.TmpFSAt(t, dir, 2<<20)
	rig.Run(t, "chown", "--reference="+in, dir)
	return dir
}

func readOnlyFolder(t *testing.T, in string) string {
	t.Helper()
	dir := newFolder(t, in, "read-only")
	rig.TmpFSAt(t, dir, 2*suiteChain.Size)
	rig.Run(t, "mount", "-o", "remount,ro", dir)
	return dir
}

func startFile(t *testing.T) *exportServer {
	dir := t.TempDir()
	s := &exportServer{to: func(string) access { return access{url: under(dir + "/")} }, badURL: "file://"}
	s.folder(dir)
	s.missing = func(*testing.T) access { return access{url: under(dir + "/missing/")} }
	s.full = func(t *testing.T) access { return access{url: under(fullFolder(t, dir) + "/")} }
	s.readOnly = func(t *testing.T) access { return access{url: under(readOnlyFolder(t, dir) + "/")} }
	return s
}

func startDevice(t *testing.T) *exportServer {
	device := rig.LoopDevice(t, newDisk(t))
	s := &exportServer{to: func(string) access { return access{url: only(device), args: []string{"--force"}} }, badURL: "file://elsewhere/dev/loop0"}
	s.disk(device)
	s.readOnly = func(t *testing.T) access {
		return access{url: only(rig.LoopDevice(t, newDisk(t), "--read-only")), args: []string{"--force"}}
	}
	return s
}

// sshServer returns what is reached by ssh, with the scheme.
func sshServer(t *testing.T, scheme string) *exportServer {
	server, dir := rig.Sshd(t), t.TempDir()
	// Also at the cutter's port the key is that of the server.
	command := fmt.Sprintf("%s -o 'HostKeyAlias=[%s]:%d'", server.Command, server.Host, server.Port)
	at := func(host, dir string) access {
		return access{url: under(scheme + "://" + server.User + "@" + host + dir + "/"), args: []string{"--ssh-command", command}}
	}
	in := func(dir string) access { return at(server.Address, dir) }
	s := &exportServer{host: server.Address, badURL: scheme + "://me:secret-of-mine@" + server.Address + "/x"}
	s.folder(dir)
	s.to = func(host string) access { return at(host, dir) }
	s.stop, s.restart = func(t *testing.T) { server.Stop(t) }, func(t *testing.T) { server.Restart(t) }
	s.denied = func(*testing.T) access {
		a := in(dir)
		// Without a key of the user's.
		a.args[1] = "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o IdentitiesOnly=yes -o IdentityFile=/nowhere"
		return a
	}
	s.missing = func(*testing.T) access { return in(dir + "/missing") }
	s.full = func(t *testing.T) access { return in(fullFolder(t, dir)) }
	s.readOnly = func(t *testing.T) access { return in(readOnlyFolder(t, dir)) }
	return s
}

func startSFTP(t *testing.T) *exportServer     { return sshServer(t, "sftp") }
func startRsyncSSH(t *testing.T) *exportServer { return sshServer(t, "rsync+ssh") }

func startRsync(t *testing.T) *exportServer {
	server := rig.Rsyncd(t)
	in := func(host, dir string) access {
		return access{
			url:  under(strings.Replace(server.Locked, server.Address, host, 1) + strings.TrimPrefix(dir, server.LockedDir) + "/"),
			args: []string{"--password-file", writeSecret(t, server.Password)},
		}
	}
	s := &exportServer{host: server.Address, secrets: []string{server.Password}, badURL: "rsync://me:secret-of-mine@" + server.Address + "/locked/x"}
	s.folder(server.LockedDir)
	s.vague = true
	s.to = func(host string) access { return in(host, server.LockedDir) }
	s.stop, s.restart = func(*testing.T) { server.Stop() }, func(t *testing.T) { server.Restart(t) }
	s.denied = func(t *testing.T) access {
		a := s.to(s.host)
		a.args = []string{"--password-file", writeSecret(t, "wrong")}
		return a
	}
	s.missing = func(*testing.T) access { return in(s.host, server.LockedDir+"/missing") }
	s.full = func(t *testing.T) access { return in(s.host, fullFolder(t, server.LockedDir)) }
	s.readOnly = func(t *testing.T) access { return in(s.host, readOnlyFolder(t, server.LockedDir)) }
	return s
}
