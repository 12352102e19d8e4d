package rig

import (
	"os/exec"
	"path/filepath"
	"strconv"
)

// RsyncServer is an rsync daemon with two modules.
type RsyncServer struct {
	*Server
	// Open is a URL that all may write to, Locked one that wants User and
	// Password: rsync://HOST:PORT/MODULE.
	Open, Locked   string
	User, Password string
	// OpenDir and LockedDir are the modules' folders.
	OpenDir, LockedDir string
}

// Rsyncd starts an rsync daemon; it ends with the test.
func Rsyncd(t T) *RsyncServer {
	t.Helper()
	rsync := Need(t, "rsync")
	s := newServer(t, "rsync daemon")
	r := &RsyncServer{
		Server: s, User: "tester", Password: "secret",
		OpenDir: filepath.Join(s.Dir, "open"), LockedDir: filepath.Join(s.Dir, "locked"),
	}
	makeDirs(t, r.OpenDir, r.LockedDir)
	writeFile(t, filepath.Join(s.home, "secrets"), r.User+":"+r.Password+"\n")
	s.serve(t, 1, func(ports []int) *exec.Cmd {
		config := s.configure(t, "rsyncd.conf", "@PORT@", strconv.Itoa(ports[0]), "@USER@", r.User)
		return Command(rsync, "--daemon", "--no-detach", "--config="+config)
	})
	r.Open = "rsync://" + s.Address + "/open"
	r.Locked = "rsync://" + r.User + "@" + s.Address + "/locked"
	return r
}
