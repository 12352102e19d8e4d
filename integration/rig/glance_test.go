package rig_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"flatimg/integration/rig"
)

// upload makes an image, sends its bytes and wants it active.
func upload(t *testing.T, g *rig.GlanceServer, token string) {
	t.Helper()
	const message = `{"name": "disk", "disk_format": "raw", "container_format": "bare"}`
	images := g.URL + "/v2/images"
	if code, _ := request(t, http.DefaultClient, "POST", images, message, "Content-Type", "application/json", "X-Auth-Token", "wrong"); code != 401 {
		t.Errorf("a wrong token: %d", code)
	}
	code, body := request(t, http.DefaultClient, "POST", images, message, "Content-Type", "application/json", "X-Auth-Token", token)
	var image struct{ ID string }
	if err := json.Unmarshal([]byte(body), &image); code != 201 || err != nil {
		t.Fatalf("%d %s\n%s", code, body, g.Log())
	}
	file := images + "/" + image.ID + "/file"
	if code, body := request(t, http.DefaultClient, "PUT", file, "hello", "Content-Type", "application/octet-stream", "X-Auth-Token", token); code != 204 {
		t.Fatalf("%d %s\n%s", code, body, g.Log())
	}
	if code, body := request(t, http.DefaultClient, "GET", images+"/"+image.ID, "", "X-Auth-Token", token); code != 200 || !strings.Contains(body, `"status": "active"`) {
		t.Errorf("%d %s", code, body)
	}
	wantFile(t, filepath.Join(g.Dir, image.ID), "hello")
}

func TestGlance(t *testing.T) {
	g := rig.Glance(t)
	upload(t, g, g.Token)
	if rig.Glance(t) != g {
		t.Error("another one is started")
	}
}

func TestNewGlance(t *testing.T) {
	g := rig.NewGlance(t, t.TempDir())
	upload(t, g, g.Token)
}

func TestGlanceKeystone(t *testing.T) {
	g := rig.GlanceKeystone(t)
	upload(t, g, g.Keystone.Token(t))
}
