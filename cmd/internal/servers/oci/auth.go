package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

const (
	// tokenLife is how long a token lives whose registry does not say it (the
	// Docker registry's "Token Authentication Specification").
	tokenLife = 60 * time.Second
	// tokenSlack is how long before its end a token is replaced: a large
	// request that is refused for its token has to be sent again.
	tokenSlack = 15 * time.Second
)

// registryAuth authorises requests to a registry: as the user, or with a token
// that another server gives for the user. Safe for concurrent use.
type registryAuth struct {
	login login
	scope string // "repository:NAME:pull,push"

	mu        sync.Mutex
	challenge *challenge // nil until the registry has asked
	token     string
	renew     time.Time // when the token is to be replaced
}

// challenge is what a registry asks for (RFC 9110, section 11.6.1).
type challenge struct {
	scheme         string // in small letters
	realm, service string
}

// authorize adds to a request what the registry has asked for earlier.
func (a *registryAuth) authorize(ctx context.Context, client *http.Client, req *http.Request) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.challenge == nil {
		return nil
	}
	if a.challenge.scheme == "basic" {
		req.SetBasicAuth(a.login.user, a.login.password)
		return nil
	}
	if a.token == "" || time.Now().After(a.renew) {
		if err := a.fetch(ctx, client); err != nil {
			return err
		}
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	return nil
}

// challenged takes note of what an answer of status 401 asks for, and says
// whether to send the request again.
func (a *registryAuth) challenged(resp *http.Response) (again bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, text := range resp.Header.Values("WWW-Authenticate") {
		c := parseChallenge(text)
		switch c.scheme {
		case "basic":
			// The same name and password are refused again.
			again = a.challenge == nil && a.login.user != ""
		case "bearer":
			realm, err := url.Parse(c.realm)
			if err != nil || realm.Host == "" || realm.Scheme != "https" && (realm.Scheme != "http" || resp.Request.URL.Scheme != "http") {
				return false, transfer.Lasting(fmt.Errorf("the registry wants tokens from %q", c.realm))
			}
			again = true
		default:
			continue
		}
		a.challenge, a.token = &c, ""
		return again, nil
	}
	return false, nil
}

// parseChallenge parses SCHEME key="value",key=value.
func parseChallenge(text string) challenge {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	c := challenge{scheme: strings.ToLower(scheme)}
	for rest != "" {
		var key, value string
		var ok bool
		if key, rest, ok = strings.Cut(rest, "="); !ok {
			break
		}
		if quoted, isQuoted := strings.CutPrefix(rest, `"`); isQuoted {
			value, rest, _ = strings.Cut(quoted, `"`)
			_, rest, _ = strings.Cut(rest, ",")
		} else {
			value, rest, _ = strings.Cut(rest, ",")
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "realm":
			c.realm = value
		case "service":
			c.service = value
		}
	}
	return c
}

// fetch gets a token; a.mu is held.
func (a *registryAuth) fetch(ctx context.Context, client *http.Client) error {
	req, err := a.tokenRequest(ctx)
	if err != nil {
		return transfer.Lasting(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("get a token from %s: %w", req.URL.Host, web.WithoutURL(err))
	}
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("get a token from %s: %w", req.URL.Host, web.StatusError(resp))
		if web.HasStatus(err, http.StatusUnauthorized, http.StatusForbidden) {
			return &cli.Error{Err: err, Hint: "check user and password: --user, --password-file, or what podman login has stored", Code: cli.ExitServer}
		}
		return err
	}
	defer web.Drain(resp)
	var answer struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"` // OAuth 2's name for it
		ExpiresIn   int64  `json:"expires_in"`   // seconds
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, web.MaxAnswer)).Decode(&answer); err != nil {
		return fmt.Errorf("get a token from %s: %w", req.URL.Host, err)
	}
	a.token = answer.Token
	if a.token == "" {
		a.token = answer.AccessToken
	}
	if a.token == "" {
		return transfer.Lasting(errors.New("the answer has no token"))
	}
	life := tokenLife
	if answer.ExpiresIn > 0 && answer.ExpiresIn < 1<<30 {
		life = time.Duration(answer.ExpiresIn) * time.Second
	}
	a.renew = time.Now().Add(max(life-tokenSlack, life/2))
	return nil
}

// tokenRequest asks as the user, or with the identity token as OAuth 2 has it.
func (a *registryAuth) tokenRequest(ctx context.Context) (*http.Request, error) {
	values := url.Values{"scope": {a.scope}}
	if a.challenge.service != "" {
		values.Set("service", a.challenge.service)
	}
	if a.login.identity != "" {
		values.Set("grant_type", "refresh_token")
		values.Set("refresh_token", a.login.identity)
		values.Set("client_id", "flatimg")
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.challenge.realm, strings.NewReader(values.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.challenge.realm, nil)
	if err != nil {
		return nil, err
	}
	for key, value := range req.URL.Query() {
		values[key] = value
	}
	req.URL.RawQuery = values.Encode()
	if a.login.user != "" {
		req.SetBasicAuth(a.login.user, a.login.password)
	}
	return req, nil
}
