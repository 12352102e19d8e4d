package glance

import (
	"io"
	"maps"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
)

func TestParseURL(t *testing.T) {
	for _, c := range []struct {
		dest, name string
		byImport   bool
	}{
		{"glance://web", "web", false},
		{"GLANCE://Web%20server", "Web server", false},
		{"glance+import://web+1/", "web+1", true},
		{"glance://", "disk.v1", false},
		{"glance:///", "disk.v1", false},
	} {
		name, byImport, err := parseURL(c.dest, "disk.v1.qcow2")
		if err != nil || name != c.name || byImport != c.byImport {
			t.Errorf("%s: %s, %v, %v", c.dest, name, byImport, err)
		}
	}
	for _, dest := range []string{"glance://a/b", "glance://a%2fb", "glance://%zz", "glance://%00", "glance://" + strings.Repeat("a", 256)} {
		if _, _, err := parseURL(dest, ""); cli.ExitCode(err) != cli.ExitUsage || cli.Hint(err) == "" {
			t.Errorf("%s: %v", dest, err)
		}
	}
	if _, _, err := parseURL("glance://", ""); cli.ExitCode(err) != cli.ExitUsage {
		t.Errorf("no name: %v", err)
	}
}

func TestServiceURL(t *testing.T) {
	for endpoint, want := range map[string]string{
		"http://h:9292": "http://h:9292", "https://h/image/v2/": "https://h/image", "https://h/image/": "https://h/image",
		"ftp://h/": "", "": "", "h:9292": "",
	} {
		u, err := serviceURL(endpoint)
		if (err == nil) != (want != "") || err == nil && u.String() != want {
			t.Errorf("%s: %v, %v", endpoint, u, err)
		}
	}
}

func TestEnvironmentAuth(t *testing.T) {
	base := map[string]string{"OS_AUTH_URL": "http://k/v3", "OS_USERNAME": "me", "OS_PASSWORD": "secret"}
	for name, c := range map[string]struct {
		env  map[string]string
		o    servers.Options
		want gophercloud.AuthOptions
	}{
		"names": {map[string]string{"OS_USER_DOMAIN_NAME": "u", "OS_PROJECT_NAME": "p", "OS_PROJECT_DOMAIN_NAME": "d"}, servers.Options{},
			gophercloud.AuthOptions{Username: "me", Password: "secret", DomainName: "u", Scope: &gophercloud.AuthScope{ProjectName: "p", DomainName: "d"}}},
		"ids": {map[string]string{"OS_USER_ID": "i", "OS_USER_DOMAIN_ID": "u", "OS_PROJECT_ID": "p"}, servers.Options{},
			gophercloud.AuthOptions{UserID: "i", Password: "secret", Scope: &gophercloud.AuthScope{ProjectID: "p"}}},
		"options": {map[string]string{"OS_USER_ID": "i", "OS_USER_DOMAIN_ID": "u", "FLATIMG_PASSWORD": "f"}, servers.Options{User: "you"},
			gophercloud.AuthOptions{Username: "you", Password: "f", DomainID: "u"}},
		"application": {map[string]string{"OS_APPLICATION_CREDENTIAL_ID": "a", "OS_APPLICATION_CREDENTIAL_SECRET": "s", "OS_PROJECT_ID": "p"}, servers.Options{},
			gophercloud.AuthOptions{Username: "me", ApplicationCredentialID: "a", ApplicationCredentialSecret: "s"}},
		"token": {map[string]string{"OS_TOKEN": "t", "OS_PASSWORD": "", "OS_PROJECT_ID": "p"}, servers.Options{},
			gophercloud.AuthOptions{TokenID: "t", Scope: &gophercloud.AuthScope{ProjectID: "p"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("FLATIMG_PASSWORD", "")
			env := maps.Clone(base)
			maps.Copy(env, c.env)
			for key, value := range env {
				t.Setenv(key, value)
			}
			got, err := environmentAuth(c.o)
			if err != nil {
				t.Fatal(err)
			}
			if (got.Scope == nil) != (c.want.Scope == nil) || got.Scope != nil && *got.Scope != *c.want.Scope {
				t.Errorf("scope %+v, want %+v", got.Scope, c.want.Scope)
			}
			got.Scope, c.want.Scope, c.want.IdentityEndpoint = nil, nil, "http://k/v3"
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestGlanceNoAccount(t *testing.T) {
	useFake(t, "", "")
	if _, err := Open(t.Context(), "glance://a", servers.Options{}); cli.ExitCode(err) != cli.ExitUsage || cli.Hint(err) == "" {
		t.Errorf("%v", err)
	}
	t.Setenv("OS_AUTH_URL", "http://127.0.0.1:1/v3")
	if _, err := Open(t.Context(), "glance://a", servers.Options{}); cli.ExitCode(err) != cli.ExitUsage || cli.Hint(err) == "" {
		t.Errorf("no user: %v", err)
	}
	t.Setenv("OS_USERNAME", "me")
	t.Setenv("OS_PASSWORD", "secret")
	if _, err := Open(t.Context(), "glance://a", servers.Options{}); cli.ExitCode(err) != cli.ExitServer || strings.Contains(err.Error(), "secret") {
		t.Errorf("no Keystone: %v", err)
	}
}

func TestGlanceFaults(t *testing.T) {
	failing := func(pattern string, status int) func(f *fakeServer) {
		return func(f *fakeServer) {
			f.failures, f.status, f.failing = regexp.MustCompile(pattern), status, 1
		}
	}
	losing := func(pattern string) func(f *fakeServer) {
		return func(f *fakeServer) { f.loseAnswers = regexp.MustCompile(pattern) }
	}
	changing := func(key string, value any) func(f *fakeServer) {
		return func(f *fakeServer) { f.change = func(i map[string]any) { i[key] = value } }
	}
	for name, c := range map[string]struct {
		set    func(f *fakeServer)
		format string
		code   int
		text   string // in the error
	}{
		"busy at first":             {failing("GET images$", 503), "raw", 0, ""},
		"busy at create":            {failing("POST images$", 503), "raw", 0, ""},
		"busy at file":              {failing("PUT .*/file", 503), "raw", 0, ""},
		"busy at rename":            {failing("PATCH", 503), "raw", 0, ""},
		"answer to create lost":     {losing("POST images$"), "raw", 0, ""},
		"answer to file lost":       {losing("PUT .*/file"), "raw", 0, ""},
		"answer to rename lost":     {losing("PATCH"), "raw", 0, ""},
		"store full":                {failing("PUT .*/file", 413), "raw", cli.ExitNoSpace, "The store is unwell"},
		"forbidden":                 {failing("POST images$", 403), "raw", cli.ExitServer, "The store is unwell"},
		"forbidden to rename":       {failing("PATCH", 403), "raw", cli.ExitServer, "rename the image"},
		"not recognised":            {changing("virtual_size", nil), "qcow2", cli.ExitServer, "not recognised"},
		"of another virtual size":   {changing("virtual_size", 12), "qcow2", cli.ExitServer, "12 bytes"},
		"of another size":           {changing("size", 12), "raw", cli.ExitServer, "another size"},
		"of another checksum":       {changing("os_hash_value", "00ff"), "raw", cli.ExitServer, "00ff"},
		"killed":                    {changing("status", "killed"), "raw", cli.ExitServer, "killed"},
		"raw without virtual size":  {changing("virtual_size", nil), "raw", 0, ""},
		"with a checksum of others": {changing("os_hash_algo", "sha256"), "raw", cli.ExitServer, "differs"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			c.set(f)
			file := raw
			file.Format = c.format
			log := &servertest.Log{}
			err := export(t.Context(), "glance://web", servers.Options{}, servertest.MixedSource(), file, log)
			if c.code == 0 && err != nil || c.code != 0 && (cli.ExitCode(err) != c.code || !strings.Contains(err.Error(), c.text)) {
				t.Fatalf("%v, want exit code %d and %q; said %q", err, c.code, c.text, log.Said)
			}
			switch names := f.names(); {
			case c.code != 0 && len(names) != 0:
				t.Errorf("left over: %q", names)
			case c.code == 0 && (len(names) != 1 || names[0] != "web"):
				t.Errorf("the images are %q", names)
			case c.code == 0 && log.SentBytes.Load() != servertest.MixedData:
				t.Errorf("%d bytes counted, want %d", log.SentBytes.Load(), servertest.MixedData)
			}
		})
	}
}

// TestGlanceReplaced has a rival that finds this image under the name, and
// replaces it before it steps back.
func TestGlanceReplaced(t *testing.T) {
	f := newFake(t)
	f.renamed = func(image map[string]any) {
		delete(f.images, image["id"].(string))
		f.images["rival"] = map[string]any{"id": "rival", "name": "web", "owner": "me", "status": "active", "updated_at": "2025-01-01T00:00:59Z"}
	}
	log := &servertest.Log{}
	if err := export(t.Context(), "glance://web", servers.Options{Force: true}, servertest.MixedSource(), raw, log); err != nil || len(log.Said) != 1 {
		t.Errorf("%v; said %q", err, log.Said)
	}
}

// TestGlanceRivalStays deletes old images, of which one has stepped back since
// and come again.
func TestGlanceRivalStays(t *testing.T) {
	f := newFake(t)
	for _, id := range []string{"a", "b"} {
		f.images[id] = map[string]any{"id": id, "name": "web", "owner": "me", "status": "active", "updated_at": "2024-01-01T00:00:00Z"}
	}
	f.deleted = func() {
		for _, id := range []string{"a", "b"} {
			if i := f.images[id]; i != nil {
				f.touch(i)
			}
		}
	}
	if err := export(t.Context(), "glance://web", servers.Options{Force: true}, servertest.MixedSource(), raw, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	if names := f.names(); len(names) != 2 {
		t.Errorf("the images are %q, want that the one that has changed stays", names)
	}
}

// TestGlanceImport has an import whose image is active before its task has
// ended, and one that fails.
func TestGlanceImport(t *testing.T) {
	f := newFake(t)
	f.tasks = []string{"processing", "processing", "success"}
	if err := export(t.Context(), "glance+import://web", servers.Options{}, servertest.MixedSource(), raw, &servertest.Log{}); err != nil {
		t.Fatal(err)
	}
	if len(f.tasks) != 1 {
		t.Error("the image was renamed before its import had ended")
	}
	f.tasks = []string{"failure"}
	err := export(t.Context(), "glance+import://web2", servers.Options{}, servertest.MixedSource(), raw, &servertest.Log{})
	if cli.ExitCode(err) != cli.ExitServer || !strings.Contains(err.Error(), "it broke") {
		t.Errorf("%v, want what broke", err)
	}
}

// TestGlanceResumePublished goes on with a run that was killed when its image
// had got its name.
func TestGlanceResumePublished(t *testing.T) {
	for _, force := range []bool{false, true} {
		f := newFake(t)
		if force {
			if err := export(t.Context(), "glance://web", servers.Options{}, servertest.NewSource(1<<20), raw, &servertest.Log{}); err != nil {
				t.Fatal(err)
			}
		}
		// It could not delete the old image.
		f.failures, f.status, f.failing = regexp.MustCompile("DELETE"), 403, 1
		first := &servertest.Log{}
		if err := export(t.Context(), "glance://web", servers.Options{Force: force}, servertest.MixedSource(), raw, first); err != nil {
			t.Fatal(err)
		}
		f.failing = 0
		second := &servertest.Log{}
		if err := export(t.Context(), "glance://web", servers.Options{Force: force, Resume: first.State}, servertest.MixedSource(), raw, second); err != nil {
			t.Fatal(err)
		}
		if second.SentBytes.Load() != 0 || second.KeptBytes.Load() != servertest.MixedData {
			t.Errorf("%d bytes sent, %d kept", second.SentBytes.Load(), second.KeptBytes.Load())
		}
		if names := f.names(); len(names) != 1 {
			t.Errorf("the images are %q", names)
		}
		checkImage(t, "glance://web", servertest.MixedSource())
	}
}

func TestGlanceDownload(t *testing.T) {
	f := newFake(t)
	for _, name := range []string{"web", "other"} {
		if err := export(t.Context(), "glance://"+name, servers.Options{}, servertest.MixedSource(), raw, &servertest.Log{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, f.noRanges = range []bool{false, true} {
		checkImage(t, "glance://web", servertest.MixedSource())
		d, err := OpenSource(t.Context(), "glance://web", servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if (d.Lanes() == 1) != f.noRanges || d.(servers.Namer).FileName() != "web.raw" {
			t.Errorf("%d lanes for %s", d.Lanes(), d.(servers.Namer).FileName())
		}
		d.Close()
	}
	// A file that is shorter than the service says.
	d, err := OpenSource(t.Context(), "glance://web", servers.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f.mu.Lock()
	for id, b := range f.files {
		f.files[id] = b[:len(b)-1]
	}
	f.mu.Unlock()
	if err := d.Read(t.Context(), io.Discard, 0, -1); cli.ExitCode(err) != cli.ExitServer {
		t.Errorf("%v, want that it is cut short", err)
	}
	// Two of one name.
	f.mu.Lock()
	for _, i := range f.images {
		i["name"] = "web"
	}
	f.mu.Unlock()
	_, err = OpenSource(t.Context(), "glance://web", servers.Options{})
	if cli.ExitCode(err) != cli.ExitUsage || strings.Count(cli.Hint(err), "-") != 8 {
		t.Errorf("%v; %s; want both ids", err, cli.Hint(err))
	}
}

func TestGlanceRefusedText(t *testing.T) {
	for body, want := range map[string]string{
		`{"message": "Denying attempt &amp; more.", "code": "413"}`:                                                                               "Denying attempt & more.",
		"<html>\n <head>\n  <title>403 Forbidden</title>\n </head>\n <body>\n  <h1>403 Forbidden</h1>\n  Not you.<br /><br />\n </body>\n</html>": "Not you.",
	} {
		resp := &http.Response{StatusCode: 409, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
		if err := refused(resp); !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
