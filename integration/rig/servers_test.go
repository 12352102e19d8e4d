package rig_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"flatimg/integration/rig"
)

// trusting returns a client that trusts a test's authority.
func trusting(t *testing.T, certs *rig.Certs) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(certs.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// request sends a request with pairs of headers and returns the answer's code
// and body. A header "user" is a user's name and password.
func request(t *testing.T, client *http.Client, method, url, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "user" {
			name, password, _ := strings.Cut(headers[i+1], ":")
			req.SetBasicAuth(name, password)
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// exchange is a request and the code of its answer.
type exchange struct {
	method, url, body string
	headers           []string
	want              int
}

func exchangeAll(t *testing.T, client *http.Client, exchanges []exchange) {
	t.Helper()
	for _, e := range exchanges {
		if code, body := request(t, client, e.method, e.url, e.body, e.headers...); code != e.want {
			t.Errorf("%s %s: %d, want %d: %.300s", e.method, e.url, code, e.want, body)
		}
	}
}

// wantFile checks what a server has stored.
func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s: %.100q, %v; want %.100q", path, b, err, want)
	}
}

func TestNginx(t *testing.T) {
	d := rig.Nginx(t)
	user := []string{"user", d.User + ":" + d.Password}
	exchangeAll(t, trusting(t, d.Certs), []exchange{
		{"PUT", d.URL + "a", "hello", nil, 201},
		{"PUT", d.URL + "new/b", "there", nil, 201},
		{"MOVE", d.URL + "a", "", []string{"Destination", d.URL + "c"}, 204},
		{"PUT", d.URL + "c", "12", []string{"Content-Range", "bytes 0-1/*"}, 501},
		{"PUT", d.AuthURL + "a", "x", nil, 401},
		{"PUT", d.AuthURL + "a", "x", []string{"user", d.User + ":wrong"}, 401},
		{"PUT", d.AuthURL + "a", "x", user, 201},
		{"PUT", d.PutURL + "a", "x", nil, 201},
		{"MOVE", d.PutURL + "a", "", []string{"Destination", d.PutURL + "c"}, 405},
		{"PUT", d.SmallURL + "a", strings.Repeat("x", 2<<20), nil, 413},
		{"GET", d.TLSURL + "c", "", nil, 200},
	})
	wantFile(t, filepath.Join(d.Dir, "c"), "hello")
	wantFile(t, filepath.Join(d.Dir, "auth/a"), "x")
}

func TestApache(t *testing.T) {
	d := rig.Apache(t)
	user := []string{"user", d.User + ":" + d.Password}
	exchangeAll(t, trusting(t, d.Certs), []exchange{
		{"PUT", d.URL + "a", "hello", nil, 201},
		{"PUT", d.URL + "a", "LL", []string{"Content-Range", "bytes 2-3/*"}, 204},
		{"MKCOL", d.URL + "new", "", nil, 201},
		{"MOVE", d.URL + "a", "", []string{"Destination", d.URL + "new/c"}, 201},
		{"PUT", d.AuthURL + "a", "x", nil, 401},
		{"PUT", d.AuthURL + "a", "x", user, 201},
		{"GET", d.TLSURL + "new/c", "", nil, 200},
	})
	wantFile(t, filepath.Join(d.Dir, "new/c"), "heLLo")
	d.Restart(t)
	exchangeAll(t, http.DefaultClient, []exchange{{"GET", d.URL + "new/c", "", nil, 200}})
}

func TestRsyncd(t *testing.T) {
	r := rig.Rsyncd(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.Run(t, "rsync", file, r.Open+"/")
	wantFile(t, filepath.Join(r.OpenDir, "file"), "hello")

	t.Setenv("RSYNC_PASSWORD", r.Password)
	rig.Run(t, "rsync", file, r.Locked+"/")
	wantFile(t, filepath.Join(r.LockedDir, "file"), "hello")
	t.Setenv("RSYNC_PASSWORD", "wrong")
	if cmd := rig.Command(rig.Need(t, "rsync"), file, r.Locked+"/"); cmd.Run() == nil {
		t.Error("a wrong password is taken")
	}
}

func TestVersitygw(t *testing.T) {
	v := rig.Versitygw(t)
	code, body := request(t, http.DefaultClient, "GET", v.URL+"/"+v.Bucket, "")
	if code != 403 || !strings.Contains(body, "AccessDenied") {
		t.Errorf("%d %s", code, body)
	}
	// curl signs requests.
	curl := func(args ...string) string {
		return rig.Run(t, "curl", append([]string{"-sS", "--fail-with-body", "--aws-sigv4", "aws:amz:" + v.Region + ":s3", "--user", v.AccessKey + ":" + v.SecretKey, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"}, args...)...)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	curl("-T", file, v.URL+"/"+v.Bucket+"/a")
	if got := curl(v.URL + "/" + v.Bucket + "/a"); got != "hello" {
		t.Errorf("got %q", got)
	}
	wantFile(t, filepath.Join(v.BucketDir, "a"), "hello")
}

func TestDockerRegistry(t *testing.T) {
	plain := rig.DockerRegistry(t, rig.RegistryOptions{})
	exchangeAll(t, http.DefaultClient, []exchange{
		{"GET", plain.URL + "/v2/", "", nil, 200},
		{"POST", plain.URL + "/v2/images/disk/blobs/uploads/", "", nil, 202},
	})
	locked := rig.DockerRegistry(t, rig.RegistryOptions{Auth: true, TLS: true})
	exchangeAll(t, trusting(t, locked.Certs), []exchange{
		{"GET", locked.URL + "/v2/", "", nil, 401},
		{"GET", locked.URL + "/v2/", "", []string{"user", locked.User + ":" + locked.Password}, 200},
	})
}

func TestNBD(t *testing.T) {
	const size = 1 << 20
	file := filepath.Join(t.TempDir(), "disk.raw")
	content := bytes.Repeat([]byte("flat"), size/4)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	servers := map[string]*rig.NBDServer{
		"nbdkit":       rig.Nbdkit(t, "file", file),
		"nbdkit TCP":   rig.NbdkitTCP(t, "--filter=delay", "file", file, "rdelay=1ms"),
		"qemu-nbd":     rig.QemuNbd(t, file),
		"qemu-nbd TCP": rig.QemuNbdTCP(t, file, "--read-only"),
	}
	for name, s := range servers {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				got := filepath.Join(t.TempDir(), "got")
				rig.Run(t, "nbdcopy", s.URI, got)
				wantFile(t, got, string(content))
				s.Restart(t)
			}
		})
	}
}
