package rig

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// python is the one that finds Debian's packages.
const python = "/usr/bin/python3"

// GlanceServer is OpenStack's image service. Its Dir holds a file for each
// image, named by its id.
type GlanceServer struct {
	*Server
	// URL of the service, without a version.
	URL string
	// Token is the X-Auth-Token that it lets in; "" with a Keystone.
	Token string
	// Keystone gives out tokens; nil with a fixed Token.
	Keystone *KeystoneServer
}

// Glance returns a Glance with a fixed token that all tests of the process
// share: the first call starts it, [Main] ends it. A test looks only at the
// images that it has made.
func Glance(t T) *GlanceServer {
	t.Helper()
	needGlance(t)
	return sharedGlance.get(t, func(t T) *GlanceServer { return newGlance(t, "", nil) })
}

// NewGlance starts a Glance with a fixed token for one test, which stores
// images in the folder store.
func NewGlance(t T, store string) *GlanceServer {
	t.Helper()
	needGlance(t)
	return newGlance(t, store, nil)
}

// GlanceKeystone returns a Glance that asks a Keystone; both are shared as
// those of [Glance] are.
func GlanceKeystone(t T) *GlanceServer {
	t.Helper()
	needGlance(t)
	NeedFile(t, "/usr/lib/python3/dist-packages/keystone", "python3-keystone")
	return sharedGlanceKeystone.get(t, func(t T) *GlanceServer {
		keystone := newKeystone(t)
		g := newGlance(t, "", keystone)
		keystone.addService(t, "image", "glance", g.URL)
		return g
	})
}

var sharedGlance, sharedGlanceKeystone lazy[*GlanceServer]

func needGlance(t T) {
	t.Helper()
	NeedFile(t, python, "python3")
	NeedFile(t, "/usr/lib/python3/dist-packages/glance", "python3-glance")
}

func newGlance(t T, store string, keystone *KeystoneServer) *GlanceServer {
	t.Helper()
	s := newServer(t, "glance")
	if store != "" {
		s.Dir = store
	}
	g := &GlanceServer{Server: s, Keystone: keystone}
	settings := []string{"@STORE@", s.Dir, "@FLAVOR@", "token"}
	if keystone == nil {
		g.Token = "token-of-the-tester"
	} else {
		settings = append(keystone.settings(), "@STORE@", s.Dir, "@FLAVOR@", "keystone")
	}
	for _, dir := range []string{"staging", "tasks", "lock"} {
		makeDirs(t, filepath.Join(s.home, dir))
	}
	writeFile(t, filepath.Join(s.home, "policy.yaml"), "{}\n")
	s.configure(t, "glance-api-paste.ini")
	s.configure(t, "tokenauth.py")
	run := s.configure(t, "run_glance.py")
	s.ready = func() bool { return answers(g.URL) }
	s.serve(t, 1, func(ports []int) *exec.Cmd {
		g.URL = "http://" + s.Address
		config := s.configure(t, "glance-api.conf", append(settings, "@PORT@", strconv.Itoa(ports[0]))...)
		cmd := Command(python, run, config, filepath.Join(s.home, "glance.sqlite"))
		// For tokenauth, and for it alone.
		cmd.Env = append(os.Environ(), "PYTHONPATH="+s.home, "GLANCE_TOKEN="+g.Token)
		return cmd
	})
	return g
}

// answers says whether an HTTP server answers at all.
func answers(url string) bool {
	client := http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Get(url)
	if err == nil {
		resp.Body.Close()
	}
	return err == nil
}
