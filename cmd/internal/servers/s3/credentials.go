package s3

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// rolePatience is how long a machine's metadata address is waited for
	// where nothing says that there is one.
	rolePatience = 2 * time.Second
	// tokenPatience is how long a service that was configured may take.
	tokenPatience = 30 * time.Second
)

// loadCredentials returns the keys to sign with, in the order of Amazon's own
// programs: the environment, the profile, and the role of this machine. Keys
// that expire are fetched again when they do.
func loadCredentials(ctx context.Context, c config, o servers.Options) (*credentials.Credentials, error) {
	if o.User != "" {
		secret, err := transfer.PasswordOf(ctx, o.User, "S3", o)
		if err == nil && secret == "" {
			err = transfer.Usage(errors.New("S3: a user without a password"), "--password-file FILE or FLATIMG_PASSWORD tells the secret key")
		}
		if err != nil {
			return nil, err
		}
		return credentials.NewStaticV4(o.User, secret, ""), nil
	}
	id, secret := os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	switch {
	case id != "" && secret != "":
		return credentials.NewStaticV4(id, secret, os.Getenv("AWS_SESSION_TOKEN")), nil
	case id != "" || secret != "":
		return nil, transfer.Usage(errors.New("S3: only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set"), "set both, or none to use a profile")
	}
	keys, err := profileKeys(ctx, c)
	if keys != nil || err != nil {
		return keys, err
	}
	return role(ctx)
}

// profileKeys returns the keys of the profile, nil where there are none.
func profileKeys(ctx context.Context, c config) (*credentials.Credentials, error) {
	keys := credentials.New(&credentials.FileAWSCredentials{Profile: c.profile})
	v, err := keys.GetWithContext(&credentials.CredContext{Client: &http.Client{Timeout: tokenPatience}, Context: ctx})
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err == nil && v.AccessKeyID != "" && v.SecretAccessKey != "":
		return keys, nil
	case !c.named && (err == nil || errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "does not exist")):
		return nil, nil
	case err == nil:
		err = errors.New("no keys in it")
	}
	return nil, &cli.Error{Err: fmt.Errorf("S3: profile %s: %w", c.profile, err), Hint: variables, Code: cli.ExitServer}
}

// role returns the keys of a role that this machine or container has.
func role(ctx context.Context) (*credentials.Credentials, error) {
	role := &credentials.IAM{}
	patience := tokenPatience
	if os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") == "" && os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") == "" &&
		os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") == "" {
		if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
			return nil, noKeys("no keys are configured")
		}
		role.Endpoint = os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")
		patience = rolePatience
	}
	// The address is one of this machine: no proxy can reach it.
	role.Client = &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: patience}).DialContext, DisableKeepAlives: true},
	}
	if patience == tokenPatience {
		role.Client.Transport = http.DefaultTransport
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	keys := credentials.New(role)
	v, err := keys.GetWithContext(&credentials.CredContext{Client: role.Client, Context: asked})
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && patience == tokenPatience:
		return nil, noKeys(fmt.Sprintf("the role's service: %v", err))
	case err != nil || v.AccessKeyID == "":
		return nil, noKeys("no keys are configured, and this machine has no role")
	}
	return keys, nil
}

func noKeys(why string) error {
	return &cli.Error{Err: fmt.Errorf("S3: %s", why), Hint: variables, Code: cli.ExitServer}
}
