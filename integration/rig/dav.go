package rig

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
)

// DAVServer is a WebDAV server. Its Dir is what its URL shows; a folder of
// that is auth, which wants a user.
type DAVServer struct {
	*Server
	// URL ends in a slash, as the others do.
	URL string
	// AuthURL wants User and Password.
	AuthURL        string
	User, Password string
	// PutURL takes PUT and no other method that changes anything; its folder
	// is put. nginx only.
	PutURL string
	// SmallURL refuses bodies over 1 MiB (413); its folder is small. nginx only.
	SmallURL string
	// TLSURL is URL with a certificate that is signed by the CA of Certs.
	TLSURL string
	Certs  *Certs
}

// Nginx starts an nginx with WebDAV; it ends with the test. It refuses
// Content-Range in a PUT (501).
func Nginx(t T) *DAVServer {
	t.Helper()
	nginx := Need(t, "nginx")
	NeedFile(t, "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so", "nginx's dav-ext module")
	s := newServer(t, "nginx")
	d := &DAVServer{Server: s, Certs: NewCerts(t)}
	makeDirs(t, filepath.Join(s.home, "tmp"), filepath.Join(s.Dir, "put"), filepath.Join(s.Dir, "small"))
	s.serve(t, 2, func(ports []int) *exec.Cmd {
		config := s.configure(t, "nginx.conf", d.settings(t, ports)...)
		return Command(nginx, "-p", s.home, "-e", filepath.Join(s.home, "error.log"), "-c", config)
	})
	d.PutURL, d.SmallURL = d.URL+"put/", d.URL+"small/"
	return d
}

// Apache starts an Apache with WebDAV; it ends with the test. It honours
// Content-Range in a PUT.
func Apache(t T) *DAVServer {
	t.Helper()
	apache := Need(t, "apache2")
	s := newServer(t, "apache2")
	d := &DAVServer{Server: s, Certs: NewCerts(t)}
	if os.Geteuid() == 0 {
		s.home, s.Dir = foreignDir(t, "www-data")
	}
	s.serve(t, 2, func(ports []int) *exec.Cmd {
		config := s.configure(t, "httpd.conf", d.settings(t, ports)...)
		// -X: one process, in the foreground.
		return Command(apache, "-X", "-f", config)
	})
	return d
}

// settings sets the URLs for the ports and makes what both servers need.
// It returns what their configurations replace.
func (d *DAVServer) settings(t T, ports []int) []string {
	t.Helper()
	d.URL = "http://" + d.Address + "/"
	d.AuthURL = d.URL + "auth/"
	d.TLSURL = "https://" + loopback(ports[1]) + "/"
	d.User, d.Password = htpasswdUser, htpasswdPassword
	makeDirs(t, filepath.Join(d.Dir, "auth"))
	own(t, d.Dir, filepath.Join(d.Dir, "auth"))
	if err := os.Chmod(d.configure(t, "htpasswd"), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	return []string{
		"@PORT@", strconv.Itoa(ports[0]), "@TLSPORT@", strconv.Itoa(ports[1]),
		"@CERT@", d.Certs.Cert, "@KEY@", d.Certs.Key,
	}
}

// The user of integration/testdata/htpasswd.
const htpasswdUser, htpasswdPassword = "tester", "secret"

// foreignDir returns a folder that another user reaches, unlike the test's own,
// and a folder data therein that belongs to that user.
func foreignDir(t T, name string) (home, data string) {
	t.Helper()
	home, err := os.MkdirTemp("", "rig-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	data = filepath.Join(home, "data")
	makeDirs(t, data)
	who, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("%v", err)
	}
	uid, _ := strconv.Atoi(who.Uid)
	gid, _ := strconv.Atoi(who.Gid)
	for _, dir := range []string{home, data} {
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatalf("%v", err)
		}
	}
	return home, data
}

// own gives a folder the owner of another.
func own(t T, like, dir string) {
	t.Helper()
	if os.Geteuid() == 0 {
		Run(t, "chown", "--reference="+like, dir)
	}
}
