package rig

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// KeystoneServer is OpenStack's identity service with one user.
type KeystoneServer struct {
	*Server
	// URL of its version 3: what OS_AUTH_URL wants.
	URL                     string
	User, Password, Project string
	Region                  string
}

func newKeystone(t T) *KeystoneServer {
	t.Helper()
	s := newServer(t, "keystone")
	k := &KeystoneServer{Server: s, User: "tester", Password: "secret-of-tester", Project: "images", Region: "RegionOne"}
	run, config := s.configure(t, "run_keystone.py"), s.configure(t, "keystone.conf")
	makeDirs(t, filepath.Join(s.home, "keys"))
	s.ready = func() bool { return answers(k.URL) }
	s.serve(t, 1, func(ports []int) *exec.Cmd {
		k.URL = "http://" + s.Address + "/v3"
		return Command(python, run, config, filepath.Join(s.home, "keystone.sqlite"), strconv.Itoa(ports[0]), k.User, k.Password, k.Project, k.Region)
	})
	return k
}

// Env returns the variables that clients authenticate with.
func (k *KeystoneServer) Env() []string {
	return []string{
		"OS_AUTH_URL=" + k.URL, "OS_IDENTITY_API_VERSION=3",
		"OS_USERNAME=" + k.User, "OS_PASSWORD=" + k.Password, "OS_PROJECT_NAME=" + k.Project,
		"OS_USER_DOMAIN_NAME=Default", "OS_PROJECT_DOMAIN_NAME=Default",
		"OS_REGION_NAME=" + k.Region, "OS_INTERFACE=public",
	}
}

// settings are what glance-api.conf replaces.
func (k *KeystoneServer) settings() []string {
	return []string{"@KEYSTONE@", k.URL, "@USER@", k.User, "@PASSWORD@", k.Password, "@PROJECT@", k.Project}
}

// Token returns a new token of the user.
func (k *KeystoneServer) Token(t T) string {
	t.Helper()
	domain := map[string]string{"id": "default"}
	_, header := k.post(t, "/auth/tokens", "", map[string]any{"auth": map[string]any{
		"identity": map[string]any{
			"methods":  []string{"password"},
			"password": map[string]any{"user": map[string]any{"name": k.User, "password": k.Password, "domain": domain}},
		},
		"scope": map[string]any{"project": map[string]any{"name": k.Project, "domain": domain}},
	}})
	return header.Get("X-Subject-Token")
}

// addService puts a service in the catalog.
func (k *KeystoneServer) addService(t T, kind, name, url string) {
	t.Helper()
	token := k.Token(t)
	b, _ := k.post(t, "/services", token, map[string]any{"service": map[string]any{"type": kind, "name": name}})
	var made struct{ Service struct{ ID string } }
	if err := json.Unmarshal(b, &made); err != nil {
		t.Fatalf("%v", err)
	}
	k.post(t, "/endpoints", token, map[string]any{"endpoint": map[string]any{
		"service_id": made.Service.ID, "interface": "public", "url": url, "region_id": k.Region,
	}})
}

// post makes something and returns the answer.
func (k *KeystoneServer) post(t T, path, token string, message any) ([]byte, http.Header) {
	t.Helper()
	text, err := json.Marshal(message)
	if err != nil {
		t.Fatalf("%v", err)
	}
	req, err := http.NewRequest("POST", k.URL+path, bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%v", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	client := http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("keystone: POST %s: %s: %s\n%s", path, resp.Status, b, k.Log())
	}
	return b, resp.Header
}
