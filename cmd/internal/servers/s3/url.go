package s3

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"flatimg/cmd/internal/servers/transfer"
)

// keyMax is the longest key in bytes (Amazon S3 User Guide, "Naming objects").
const keyMax = 1024

// location is what an s3:// URL says.
type location struct {
	bucket string
	// key is empty or ends with a slash where the URL names a folder.
	key string
	// endpoint and region are empty where the URL leaves them to the
	// environment.
	endpoint, region string
}

// parseURL parses s3://bucket/key[?endpoint=URL&region=NAME].
func parseURL(text string) (location, error) {
	fail := func(format string, args ...any) (location, error) {
		return location{}, transfer.Usage(fmt.Errorf(format, args...), "write s3://bucket/key, with percent signs, question marks and # in a key as %%25, %%3F and %%23")
	}
	u, err := url.Parse(text)
	if err != nil {
		// Not err itself, which quotes all of text with what might be a
		// password in it.
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return fail("the s3:// URL: %w", err)
	}
	l := location{bucket: u.Host, key: strings.TrimPrefix(u.Path, "/")}
	switch {
	case u.User != nil:
		return location{}, transfer.Usage(errors.New("the s3:// URL has a user in it"), "keys are told by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by a profile")
	case l.bucket == "":
		return fail("%s: no bucket", text)
	case u.Port() != "":
		return fail("%s: a bucket has no port", text)
	case u.Fragment != "":
		return fail("%s: has a #", text)
	case len(l.key) > keyMax:
		return fail("s3://%s: the key has %d bytes, the most are %d", l.bucket, len(l.key), keyMax)
	case !utf8.ValidString(l.key) || strings.ContainsRune(l.key, 0):
		return fail("s3://%s: the key is not UTF-8", l.bucket)
	}
	if err := s3utils.CheckValidBucketName(l.bucket); err != nil {
		return fail("%s: %q can't be a bucket: %w", text, l.bucket, err)
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("%s: %w", text, err)
	}
	for name, values := range query {
		switch name {
		case "endpoint":
			l.endpoint = values[0]
		case "region":
			l.region = values[0]
		default:
			return fail("%s: %s is none of the options endpoint and region", text, name)
		}
	}
	return l, nil
}

// isFolder says whether the URL names no object but where objects are.
func (l location) isFolder() bool { return l.key == "" || strings.HasSuffix(l.key, "/") }

// within returns the location of an object called name in a folder.
func (l location) within(name string) location {
	l.key += path.Base(name)
	return l
}

func (l location) String() string { return "s3://" + l.bucket + "/" + l.key }

// parseEndpoint parses the address of a server that speaks S3; where says who
// has told it.
func parseEndpoint(text, where string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, transfer.Usage(fmt.Errorf("the S3 endpoint of %s is not a URL of a server", where), "write https://host[:port] or http://host[:port]")
	}
	return u, nil
}
