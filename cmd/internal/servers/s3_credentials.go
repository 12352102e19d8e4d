package servers

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
)

const (
	// s3RolePatience is how long a machine's metadata address is waited for
	// where nothing says that there is one.
	s3RolePatience = 2 * time.Second
	// s3TokenPatience is how long a service that was configured may take.
	s3TokenPatience = 30 * time.Second
)

// s3Credentials returns the keys to sign with, in the order of Amazon's own
// programs: the environment, the profile, and the role of this machine. Keys
// that expire are fetched again when they do.
func s3Credentials(ctx context.Context, c s3Config, o Options) (*credentials.Credentials, error) {
	if o.User != "" {
		secret, err := passwordOf(ctx, o.User, "S3", o)
		if err == nil && secret == "" {
			err = usage(errors.New("S3: a user without a password"), "--password-file FILE or FLATIMG_PASSWORD tells the secret key")
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
		return nil, usage(errors.New("S3: only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is set"), "set both, or none to use a profile")
	}
	keys, err := s3ProfileKeys(ctx, c)
	if keys != nil || err != nil {
		return keys, err
	}
	return s3Role(ctx)
}

// s3ProfileKeys returns the keys of the profile, nil where there are none.
func s3ProfileKeys(ctx context.Context, c s3Config) (*credentials.Credentials, error) {
	keys := credentials.New(&credentials.FileAWSCredentials{Profile: c.profile})
	v, err := keys.GetWithContext(&credentials.CredContext{Client: &http.Client{Timeout: s3TokenPatience}, Context: ctx})
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
	return nil, &cli.Error{Err: fmt.Errorf("S3: profile %s: %w", c.profile, err), Hint: s3Variables, Code: cli.ExitServer}
}

// s3Role returns the keys of a role that this machine or container has.
func s3Role(ctx context.Context) (*credentials.Credentials, error) {
	role := &credentials.IAM{}
	patience := s3TokenPatience
	if os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE") == "" && os.Getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") == "" &&
		os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI") == "" {
		if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
			return nil, noS3Keys("no keys are configured")
		}
		role.Endpoint = os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")
		patience = s3RolePatience
	}
	// The address is one of this machine: no proxy can reach it.
	role.Client = &http.Client{
		Timeout:   patience,
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: patience}).DialContext, DisableKeepAlives: true},
	}
	if patience == s3TokenPatience {
		role.Client.Transport = http.DefaultTransport
	}
	asked, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	keys := credentials.New(role)
	v, err := keys.GetWithContext(&credentials.CredContext{Client: role.Client, Context: asked})
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && patience == s3TokenPatience:
		return nil, noS3Keys(fmt.Sprintf("the role's service: %v", err))
	case err != nil || v.AccessKeyID == "":
		return nil, noS3Keys("no keys are configured, and this machine has no role")
	}
	return keys, nil
}

func noS3Keys(why string) error {
	return &cli.Error{Err: fmt.Errorf("S3: %s", why), Hint: s3Variables, Code: cli.ExitServer}
}
