package s3

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/ini.v1"

	"flatimg/cmd/internal/servers/transfer"
)

const (
	// amazon is where requests go that nothing else is said for.
	amazon = "https://s3.amazonaws.com"
	// anyRegion is what servers other than Amazon's are signed for by default.
	anyRegion = "us-east-1"
	// variables is the hint of what is missing.
	variables = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE for a profile of ~/.aws/credentials; AWS_ENDPOINT_URL names a server that is not Amazon's, AWS_REGION its region"
)

// config says whom to ask, as Amazon's own programs find it out (AWS SDKs and
// Tools Reference Guide, "Shared config and credentials files").
type config struct {
	endpoint *url.URL
	// region is empty where Amazon is to be asked for the bucket's.
	region string
	// profile of the files; named says whether the user has chosen it.
	profile string
	named   bool
}

// loadConfig finds what a URL leaves open in the environment, then in the
// profile.
func loadConfig(l location) (config, error) {
	c := config{profile: os.Getenv("AWS_PROFILE")}
	c.named = c.profile != ""
	if !c.named {
		c.profile = "default"
	}
	p, err := loadProfile(c.profile)
	if err != nil {
		return config{}, err
	}
	endpoint, where := amazon, ""
	for _, e := range []struct{ text, where string }{
		{l.endpoint, "the URL"},
		{os.Getenv("AWS_ENDPOINT_URL_S3"), "AWS_ENDPOINT_URL_S3"},
		{os.Getenv("AWS_ENDPOINT_URL"), "AWS_ENDPOINT_URL"},
		{p.endpoint, "profile " + c.profile},
	} {
		if e.text != "" {
			endpoint, where = e.text, e.where
			break
		}
	}
	if c.endpoint, err = parseEndpoint(endpoint, where); err != nil {
		return config{}, err
	}
	c.region = cmp.Or(l.region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"), p.region)
	if c.region == "" && endpoint != amazon {
		c.region = anyRegion
	}
	return c, nil
}

// profile is what a profile says besides keys; empty: nothing.
type profile struct{ endpoint, region string }

// loadProfile reads a profile from ~/.aws/config and ~/.aws/credentials, where
// the latter wins. Files that are missing say nothing.
func loadProfile(name string) (profile, error) {
	config, err := loadINI("AWS_CONFIG_FILE", "config")
	if err != nil {
		return profile{}, err
	}
	credentials, err := loadINI("AWS_SHARED_CREDENTIALS_FILE", "credentials")
	if err != nil {
		return profile{}, err
	}
	title := "profile " + name
	if name == "default" && !config.HasSection(title) {
		title = name
	}
	section := config.Section(title)
	own := credentials.Section(name)
	p := profile{
		endpoint: cmp.Or(own.Key("endpoint_url").String(), section.Key("endpoint_url").String()),
		region:   cmp.Or(own.Key("region").String(), section.Key("region").String()),
	}
	// One for S3 alone stands in a section of its own.
	if services := section.Key("services").String(); services != "" {
		for _, line := range config.Section("services " + services).Key("s3").NestedValues() {
			if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "endpoint_url" {
				p.endpoint = strings.TrimSpace(value)
			}
		}
	}
	return p, nil
}

// loadINI reads the file that the environment variable names, or ~/.aws/name;
// it is empty where that is missing.
func loadINI(variable, name string) (*ini.File, error) {
	path := os.Getenv(variable)
	if path == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ini.Empty(), nil
		}
		path = filepath.Join(home, ".aws", name)
	}
	f, err := ini.LoadSources(ini.LoadOptions{AllowNestedValues: true, SkipUnrecognizableLines: true}, path)
	if errors.Is(err, fs.ErrNotExist) {
		return ini.Empty(), nil
	}
	if err != nil {
		return nil, transfer.Usage(fmt.Errorf("%s: %w", path, err), "%s names another file", variable)
	}
	return f, nil
}
