package rig

import (
	"os/exec"
	"strings"
)

// RegistryOptions say what a registry asks of its clients; the zero value is
// one for everybody, without TLS.
type RegistryOptions struct {
	// Auth wants the user and password of [RegistryServer] (basic auth).
	Auth bool
	// TLS serves HTTPS with a certificate of the server's own authority.
	TLS bool
}

// RegistryServer is a registry of container images (OCI distribution).
type RegistryServer struct {
	*Server
	// URL is http://HOST:PORT or https://HOST:PORT.
	URL            string
	User, Password string
	// Certs are those of TLS; nil without.
	Certs *Certs
}

// DockerRegistry starts a registry; it ends with the test.
func DockerRegistry(t T, options RegistryOptions) *RegistryServer {
	t.Helper()
	registry := Need(t, "docker-registry")
	s := newServer(t, "docker-registry")
	r := &RegistryServer{Server: s, User: htpasswdUser, Password: htpasswdPassword}
	var more strings.Builder
	if options.TLS {
		r.Certs = NewCerts(t)
		more.WriteString("  tls: {certificate: " + r.Certs.Cert + ", key: " + r.Certs.Key + "}\n")
	}
	if options.Auth {
		more.WriteString("auth: {htpasswd: {realm: test, path: " + s.configure(t, "htpasswd") + "}}\n")
	}
	s.serve(t, 1, func([]int) *exec.Cmd {
		config := s.configure(t, "registry.yml", "@ADDRESS@", s.Address, "@DATA@", s.Dir)
		writeFile(t, config, readFile(t, config)+more.String())
		return Command(registry, "serve", config)
	})
	r.URL = "http://" + s.Address
	if options.TLS {
		r.URL = "https://" + s.Address
	}
	return r
}
