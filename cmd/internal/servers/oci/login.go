package oci

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// login is who to be at a registry.
type login struct {
	user, password string
	// identity is a token that stands for both where it is not empty.
	identity string
}

func (l login) isZero() bool { return l == login{} }

// registryLogin finds the login for a repository: that of the options, else
// what `podman login` and `docker login` have stored. The zero value is nobody.
func registryLogin(ctx context.Context, ref ref, o servers.Options) (login, error) {
	user := ref.user
	if o.User != "" {
		user = o.User
	}
	if user != "" {
		secret, err := transfer.Password(o)
		if err != nil {
			return login{}, err
		}
		if secret != "" {
			return login{user: user, password: secret}, nil
		}
	} else if o.PasswordFile != "" {
		return login{}, transfer.Usage(errors.New("a password without a user"), "--user NAME says whose password it is")
	}
	for _, file := range authFiles() {
		l, err := storedLogin(ctx, file, ref)
		if err != nil {
			return login{}, err
		}
		if !l.isZero() && (user == "" || user == l.user) {
			return l, nil
		}
	}
	if user == "" {
		return login{}, nil
	}
	secret, err := transfer.PasswordOf(ctx, user, ref.host, o)
	if err != nil || secret == "" {
		return login{}, err
	}
	return login{user: user, password: secret}, nil
}

// authFiles returns where logins are stored, as containers-auth.json(5) and the
// documentation of `docker login` have it.
func authFiles() []string {
	if file := os.Getenv("REGISTRY_AUTH_FILE"); file != "" {
		return []string{file}
	}
	var files []string
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	if dir, err := os.UserConfigDir(); err == nil {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		files = append(files, filepath.Join(dir, "config.json"))
	} else if home, err := os.UserHomeDir(); err == nil {
		files = append(files, filepath.Join(home, ".docker", "config.json"))
	}
	return files
}

// authFile is what such a file holds.
type authFile struct {
	Auths map[string]struct {
		// Auth is user:password in base64.
		Auth          string `json:"auth"`
		IdentityToken string `json:"identitytoken"`
	} `json:"auths"`
	// CredHelpers and CredsStore name programs that keep the passwords.
	CredHelpers map[string]string `json:"credHelpers"`
	CredsStore  string            `json:"credsStore"`
}

// storedLogin returns what a file has for a repository.
func storedLogin(ctx context.Context, file string, ref ref) (login, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return login{}, nil
	}
	if err != nil {
		return login{}, err
	}
	var a authFile
	if err := json.Unmarshal(text, &a); err != nil {
		return login{}, fmt.Errorf("%s: %w", file, err)
	}
	for _, key := range loginKeys(ref) {
		if helper := a.CredHelpers[key]; helper != "" {
			return helperLogin(ctx, helper, key)
		}
		e, ok := a.Auths[key]
		switch {
		case !ok:
		case e.IdentityToken != "":
			return login{identity: e.IdentityToken}, nil
		case e.Auth != "":
			plain, err := base64.StdEncoding.DecodeString(e.Auth)
			user, secret, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
			if err != nil || !ok {
				return login{}, fmt.Errorf("%s: the login for %s is not user:password in base64", file, key)
			}
			return login{user: user, password: secret}, nil
		case a.CredsStore != "":
			return helperLogin(ctx, a.CredsStore, key)
		}
	}
	return login{}, nil
}

// loginKeys returns the names that a login for a repository may have in a
// file, the most particular first.
func loginKeys(ref ref) []string {
	var keys []string
	for repo := ref.host + "/" + ref.repo; repo != ref.host; repo = repo[:strings.LastIndexByte(repo, '/')] {
		keys = append(keys, repo)
	}
	keys = append(keys, ref.host, "https://"+ref.host, "http://"+ref.host, "https://"+ref.host+"/v1/", "https://"+ref.host+"/v2/")
	if ref.host == "docker.io" {
		keys = append(keys, "https://index.docker.io/v1/")
	}
	return keys
}

// helperName is what a program's name may be made of.
var helperName = regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)

// helperLogin asks a program that keeps passwords (docker-credential-helpers,
// "Development").
func helperLogin(ctx context.Context, helper, key string) (login, error) {
	if !helperName.MatchString(helper) {
		return login{}, fmt.Errorf("%q can't be a credential helper", helper)
	}
	ctx, cancel := context.WithTimeout(ctx, web.ConnectTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker-credential-"+helper, "get")
	cmd.Stdin = strings.NewReader(key)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if bytes.Contains(out, []byte("credentials not found")) {
		return login{}, nil
	}
	var answer struct{ Username, Secret string }
	if err == nil {
		err = json.Unmarshal(out, &answer)
	}
	if err != nil {
		return login{}, fmt.Errorf("docker-credential-%s: %w", helper, err)
	}
	if answer.Username == "<token>" {
		return login{identity: answer.Secret}, nil
	}
	return login{user: answer.Username, password: answer.Secret}, nil
}
