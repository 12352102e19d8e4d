package integration

import (
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flatimg/integration/rig"
)

func startNginx(t *testing.T) *exportServer {
	s := davServer(t, rig.Nginx(t))
	// It makes folders as they are needed, and does not tell why a write fails.
	s.missing, s.vague = nil, true
	return s
}

func startApache(t *testing.T) *exportServer { return davServer(t, rig.Apache(t)) }

func davServer(t *testing.T, server *rig.DAVServer) *exportServer {
	dir := newFolder(t, server.Dir, "images")
	in := func(host, dir string) access {
		return access{url: under("dav://" + host + strings.TrimPrefix(dir, server.Dir) + "/")}
	}
	s := &exportServer{host: server.Address, secrets: []string{server.Password}, badURL: "dav://me:secret-of-mine@" + server.Address + "/x"}
	s.folder(dir)
	s.to = func(host string) access { return in(host, dir) }
	s.stop, s.restart = func(*testing.T) { server.Stop() }, func(t *testing.T) { server.Restart(t) }
	s.denied = func(t *testing.T) access {
		return access{url: under(strings.Replace(server.AuthURL, "http:", "dav:", 1)), args: []string{"--user", server.User, "--password-file", writeSecret(t, "wrong")}}
	}
	s.missing = func(*testing.T) access { return in(s.host, dir+"/missing") }
	s.full = func(t *testing.T) access { return in(s.host, fullFolder(t, dir)) }
	return s
}

func startS3(t *testing.T) *exportServer {
	server := rig.Versitygw(t)
	in := func(host, bucket, secret string) access {
		return access{url: under("s3://" + bucket + "/"), env: []string{
			"AWS_ENDPOINT_URL=http://" + host, "AWS_ACCESS_KEY_ID=" + server.AccessKey, "AWS_SECRET_ACCESS_KEY=" + secret, "AWS_REGION=" + server.Region,
		}}
	}
	s := &exportServer{host: server.Address, secrets: []string{server.SecretKey}, badURL: "s3://"}
	s.folder(server.BucketDir)
	s.left = func(t *testing.T) []string {
		// The gateway's folder for uploads that are not complete.
		var left []string
		filepath.WalkDir(filepath.Join(server.BucketDir, ".sgwtmp"), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				left = append(left, path)
			}
			return nil
		})
		return left
	}
	s.to = func(host string) access { return in(host, server.Bucket, server.SecretKey) }
	s.stop, s.restart = func(*testing.T) { server.Stop() }, func(t *testing.T) { server.Restart(t) }
	s.denied = func(*testing.T) access { return in(s.host, server.Bucket, "wrong") }
	s.missing = func(*testing.T) access { return in(s.host, "missing", server.SecretKey) }
	s.full = func(t *testing.T) access {
		return in(s.host, filepath.Base(fullFolder(t, server.Dir)), server.SecretKey)
	}
	return s
}

func startOCI(t *testing.T) *exportServer {
	server := rig.DockerRegistry(t, rig.RegistryOptions{Auth: true})
	in := func(host, password string) access {
		return access{url: under("oci://" + host + "/vm/"), args: []string{"--user", server.User, "--password-file", writeSecret(t, password)}}
	}
	s := &exportServer{host: server.Address, secrets: []string{server.Password}, badURL: "oci://" + server.Address + "/Not/Small:x"}
	s.to = func(host string) access { return in(host, server.Password) }
	s.stop, s.restart = func(*testing.T) { server.Stop() }, func(t *testing.T) { server.Restart(t) }
	s.denied = func(*testing.T) access { return in(s.host, "wrong") }
	// The registry's own layout of its folder.
	root := filepath.Join(server.Dir, "docker/registry/v2")
	blob := func(digest string) string {
		_, hex, _ := strings.Cut(strings.TrimSpace(digest), ":")
		return filepath.Join(root, "blobs/sha256", hex[:2], hex, "data")
	}
	s.file = func(t *testing.T, name string) string {
		t.Helper()
		link, err := os.ReadFile(filepath.Join(root, "repositories/vm", name, "_manifests/tags/latest/current/link"))
		if err != nil {
			return ""
		}
		var manifest struct{ Layers []struct{ Digest string } }
		if err := json.Unmarshal([]byte(readFile(t, blob(string(link)))), &manifest); err != nil || len(manifest.Layers) != 1 {
			t.Fatalf("manifest: %v, %d layers", err, len(manifest.Layers))
		}
		dir := t.TempDir()
		rig.RunIn(t, dir, "tar", "xSf", blob(manifest.Layers[0].Digest))
		files, err := filepath.Glob(filepath.Join(dir, "disk", "*"))
		if err != nil || len(files) != 1 {
			t.Fatalf("in the layer: %q, %v", files, err)
		}
		return files[0]
	}
	s.left = func(t *testing.T) []string {
		left, err := filepath.Glob(filepath.Join(root, "repositories/vm/*/_uploads/*"))
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	s.remove = func(t *testing.T, name string) { os.RemoveAll(filepath.Join(root, "repositories/vm", name)) }
	return s
}

func startGlance(t *testing.T) *exportServer {
	server := rig.NewGlance(t, "")
	in := func(host, token string) access {
		return access{url: under("glance://"), env: []string{"OS_AUTH_TYPE=token_endpoint", "OS_ENDPOINT=http://" + host, "OS_TOKEN=" + token}}
	}
	s := &exportServer{host: server.Address, secrets: []string{server.Token}, badURL: "glance://a/b"}
	s.to = func(host string) access { return in(host, server.Token) }
	s.stop, s.restart = func(*testing.T) { server.Stop() }, func(t *testing.T) { server.Restart(t) }
	s.denied = func(*testing.T) access { return in(s.host, "wrong") }
	type image struct{ ID, Name, Status string }
	list := func(t *testing.T) []image {
		t.Helper()
		var answer struct{ Images []image }
		if err := json.Unmarshal(askGlance(t, server, "GET", "/v2/images?limit=1000"), &answer); err != nil {
			t.Fatal(err)
		}
		return answer.Images
	}
	s.file = func(t *testing.T, name string) string {
		t.Helper()
		for _, im := range list(t) {
			if im.Name == name && im.Status == "active" {
				return filepath.Join(server.Dir, im.ID)
			}
		}
		return ""
	}
	s.left = func(t *testing.T) []string {
		var left []string
		for _, im := range list(t) {
			if im.Status != "active" || strings.HasPrefix(im.Name, ".") {
				left = append(left, im.Name+": "+im.Status)
			}
		}
		return left
	}
	s.remove = func(t *testing.T, name string) {
		for _, im := range list(t) {
			if im.Name == name {
				askGlance(t, server, "DELETE", "/v2/images/"+im.ID)
			}
		}
	}
	return s
}

// askGlance asks the service as its user.
func askGlance(t *testing.T, server *rig.GlanceServer, method, path string) []byte {
	t.Helper()
	// Also after the test, whose context has ended then.
	req, err := http.NewRequest(method, server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", server.Token)
	client := http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s, %v", method, path, resp.Status, b, err)
	}
	return b
}

func startImageio(t *testing.T) *exportServer {
	server := rig.NewImageio(t, rig.ImageioOptions{Size: suiteChain.Size})
	at := func(server *rig.Imageio, host string) access {
		url := strings.Replace(server.URL, server.Address, host, 1)
		return access{url: only("imageio+" + url), args: []string{"--cacert", server.Certs.CA}}
	}
	s := &exportServer{host: server.Address, badURL: "imageio+https://" + server.Address}
	s.disk(server.Path)
	s.to = func(host string) access { return at(server, host) }
	s.denied = func(*testing.T) access {
		return access{url: only("imageio+https://" + server.Address + "/images/other"), args: []string{"--cacert", server.Certs.CA}}
	}
	s.readOnly = func(t *testing.T) access {
		other := rig.NewImageio(t, rig.ImageioOptions{Size: suiteChain.Size, ReadOnly: true})
		return at(other, other.Address)
	}
	return s
}

func startNbdkit(t *testing.T) *exportServer {
	disk := newDisk(t)
	// With more threads a connection that is cut can end nbdkit 1.32 by an
	// assertion of its own.
	return nbdServer(rig.NbdkitTCP(t, "--threads=1", "file", disk), disk, func(t *testing.T) *rig.NBDServer {
		return rig.NbdkitTCP(t, "--readonly", "file", newDisk(t))
	})
}

func startQemuNbd(t *testing.T) *exportServer {
	disk := newDisk(t)
	// It keeps holes when it is told to.
	s := nbdServer(rig.QemuNbdTCP(t, disk, "--discard=unmap"), disk, func(t *testing.T) *rig.NBDServer {
		return rig.QemuNbdTCP(t, newDisk(t), "--read-only")
	})
	s.missing = func(*testing.T) access { return access{url: only("nbd://" + s.host + "/missing")} }
	return s
}

func nbdServer(server *rig.NBDServer, disk string, readOnly func(t *testing.T) *rig.NBDServer) *exportServer {
	s := &exportServer{host: server.Address, badURL: "nbd:///"}
	s.disk(disk)
	s.to = func(host string) access { return access{url: only("nbd://" + host)} }
	s.stop, s.restart = func(*testing.T) { server.Stop() }, func(t *testing.T) { server.Restart(t) }
	s.readOnly = func(t *testing.T) access { return access{url: only(readOnly(t).URI)} }
	return s
}
