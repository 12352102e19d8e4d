package glance

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// account is how to get at an image service: by Keystone, which has a catalog of
// services and gives out tokens, or straight.
type account struct {
	// endpoint of the service; empty: the catalog has it.
	endpoint string
	// token, where there is no Keystone; it may be empty.
	token string
	// keystone says who to be there; nil: there is none.
	keystone *gophercloud.AuthOptions
	catalog  gophercloud.EndpointOpts
	// tls is that of clouds.yaml; nil: that of the options.
	tls *tls.Config
}

// findAccount looks where OpenStack's own client does: at clouds.yaml when
// OS_CLOUD names an entry of it, else at the OS_* variables.
func findAccount(o servers.Options) (account, error) {
	a := account{endpoint: cmp.Or(os.Getenv("OS_IMAGE_ENDPOINT_OVERRIDE"), os.Getenv("OS_ENDPOINT")), token: os.Getenv("OS_TOKEN")}
	kind := os.Getenv("OS_AUTH_TYPE")
	straight := kind == "none" || kind == "token_endpoint" || kind == "admin_token"
	switch {
	case os.Getenv("OS_CLOUD") != "":
		auth, catalog, tlsConfig, err := clouds.Parse()
		if err != nil {
			return account{}, transfer.Usage(fmt.Errorf("clouds.yaml: %w", err), "OS_CLOUD names one of its clouds")
		}
		a.keystone, a.catalog = &auth, catalog
		if o.CACert == "" {
			a.tls = tlsConfig
		}
	case os.Getenv("OS_AUTH_URL") != "" && !straight:
		auth, err := environmentAuth(o)
		if err != nil {
			return account{}, err
		}
		a.keystone = &auth
		a.catalog = gophercloud.EndpointOpts{Region: os.Getenv("OS_REGION_NAME"), Availability: availability(os.Getenv("OS_INTERFACE"))}
	case a.endpoint == "":
		return account{}, transfer.Usage(errors.New("no OpenStack account is given"),
			"set OS_CLOUD, or OS_AUTH_URL and the other variables of an openrc file; without Keystone OS_ENDPOINT and OS_TOKEN")
	}
	return a, nil
}

// environmentAuth returns who the OS_* variables say to be.
func environmentAuth(o servers.Options) (gophercloud.AuthOptions, error) {
	get := func(names ...string) string {
		for _, name := range names {
			if value := os.Getenv(name); value != "" {
				return value
			}
		}
		return ""
	}
	secret, err := transfer.Password(o)
	if err != nil {
		return gophercloud.AuthOptions{}, err
	}
	a := gophercloud.AuthOptions{
		IdentityEndpoint: get("OS_AUTH_URL"),
		UserID:           get("OS_USER_ID", "OS_USERID"),
		Username:         cmp.Or(o.User, get("OS_USERNAME")),
		Password:         cmp.Or(secret, get("OS_PASSWORD")),
		DomainID:         get("OS_USER_DOMAIN_ID", "OS_DOMAIN_ID", "OS_DEFAULT_DOMAIN_ID"),
		DomainName:       get("OS_USER_DOMAIN_NAME", "OS_DOMAIN_NAME", "OS_DEFAULT_DOMAIN_NAME"),

		ApplicationCredentialID:     get("OS_APPLICATION_CREDENTIAL_ID"),
		ApplicationCredentialName:   get("OS_APPLICATION_CREDENTIAL_NAME"),
		ApplicationCredentialSecret: get("OS_APPLICATION_CREDENTIAL_SECRET"),
	}
	if o.User != "" {
		a.UserID = ""
	}
	if a.DomainID != "" || a.UserID != "" {
		a.DomainName = "" // either names it
	}
	if a.UserID != "" {
		a.DomainID, a.Username = "", ""
	}
	if a.ApplicationCredentialSecret != "" {
		a.Password = ""
		return a, nil // it has a project of its own
	}
	if a.Password == "" {
		a.TokenID = get("OS_TOKEN")
	}
	if a.TokenID != "" {
		a.Username, a.UserID, a.DomainID, a.DomainName = "", "", "", ""
	} else if a.Password == "" || a.Username == "" && a.UserID == "" {
		return gophercloud.AuthOptions{}, transfer.Usage(errors.New("OS_AUTH_URL is set, but no user and password"),
			"set OS_USERNAME and OS_PASSWORD, or an application credential")
	}
	a.Scope = &gophercloud.AuthScope{ProjectID: get("OS_PROJECT_ID", "OS_TENANT_ID")}
	if a.Scope.ProjectID == "" {
		a.Scope.ProjectName = get("OS_PROJECT_NAME", "OS_TENANT_NAME")
		if a.Scope.DomainID = get("OS_PROJECT_DOMAIN_ID", "OS_DOMAIN_ID", "OS_DEFAULT_DOMAIN_ID"); a.Scope.DomainID == "" {
			a.Scope.DomainName = cmp.Or(get("OS_PROJECT_DOMAIN_NAME", "OS_DOMAIN_NAME", "OS_DEFAULT_DOMAIN_NAME"), "Default")
		}
	}
	if a.Scope.ProjectID == "" && a.Scope.ProjectName == "" {
		a.Scope = nil // the user's default project
	}
	return a, nil
}

func availability(name string) gophercloud.Availability {
	switch strings.TrimSuffix(name, "URL") {
	case "internal":
		return gophercloud.AvailabilityInternal
	case "admin":
		return gophercloud.AvailabilityAdmin
	}
	return gophercloud.AvailabilityPublic
}

// token is the token of requests. Safe for concurrent use.
type token struct {
	account account
	http    *http.Client

	mu      sync.Mutex
	token   string
	fetched time.Time
}

// get returns the token.
func (t *token) get() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.token
}

// login gets a token from Keystone, and returns the endpoint in its catalog.
func (t *token) login(ctx context.Context) (endpoint string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.account.keystone == nil {
		t.token = t.account.token
		return t.account.endpoint, nil
	}
	where := t.account.keystone.IdentityEndpoint
	provider, err := openstack.NewClient(where)
	if err == nil {
		provider.HTTPClient = *t.http
		err = openstack.Authenticate(ctx, provider, *t.account.keystone)
	}
	if err != nil {
		err = fmt.Errorf("log in at Keystone, %s: %w", transfer.Redacted(where), web.WithoutURL(err))
		if gophercloud.ResponseCodeIs(err, http.StatusUnauthorized) || gophercloud.ResponseCodeIs(err, http.StatusForbidden) {
			err = &cli.Error{
				Err:  fmt.Errorf("log in at Keystone, %s: wrong user, password, domain or project", transfer.Redacted(where)),
				Hint: "check the OS_* variables, or the cloud in clouds.yaml",
				Code: cli.ExitServer,
			}
		}
		for _, status := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout} {
			if gophercloud.ResponseCodeIs(err, status) {
				err = transfer.Passing(err)
			}
		}
		return "", err
	}
	t.token, t.fetched = provider.Token(), time.Now()
	if t.account.endpoint != "" {
		return t.account.endpoint, nil
	}
	service, err := openstack.NewImageV2(provider, t.account.catalog)
	if err != nil {
		return "", transfer.Lasting(fmt.Errorf("no image service in Keystone's catalog, region %q: %w", t.account.catalog.Region, err))
	}
	return service.Endpoint, nil
}

// renew gets a new token in place of a stale one, which another goroutine may
// have replaced already. It returns false when there can't be another one.
func (t *token) renew(ctx context.Context, stale string) (bool, error) {
	if t.account.keystone == nil {
		return false, nil
	}
	if t.get() != stale {
		return true, nil
	}
	_, err := t.login(ctx)
	return err == nil, err
}

// refresh gets a new token unless this one is new: before a request that takes
// long.
func (t *token) refresh(ctx context.Context) error {
	t.mu.Lock()
	isNew := t.account.keystone == nil || time.Since(t.fetched) < time.Minute
	t.mu.Unlock()
	if isNew {
		return nil
	}
	_, err := t.login(ctx)
	return err
}

// serviceURL parses the endpoint of an image service, with or without version.
func serviceURL(endpoint string) (*url.URL, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, transfer.Usage(fmt.Errorf("%q is not the URL of an image service", transfer.Redacted(endpoint)), "check OS_ENDPOINT, or the service catalog of the cloud")
	}
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/v2")
	u.RawQuery, u.Fragment, u.User = "", "", nil
	return u, nil
}
