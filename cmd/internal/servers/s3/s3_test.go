package s3

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/servertest"
	"flatimg/cmd/internal/servers/transfer"
)

func TestParseURL(t *testing.T) {
	for text, want := range map[string]location{
		"s3://bucket/key":           {bucket: "bucket", key: "key"},
		"s3://bucket/a/b%20c%3fd+e": {bucket: "bucket", key: "a/b c?d+e"},
		"S3://bucket":               {bucket: "bucket"},
		"s3://bucket/":              {bucket: "bucket"},
		"s3://bucket//a/":           {bucket: "bucket", key: "/a/"},
		"s3://bucket/a?endpoint=http://127.0.0.1:9000&region=x-1": {bucket: "bucket", key: "a", endpoint: "http://127.0.0.1:9000", region: "x-1"},
	} {
		if l, err := parseURL(text); err != nil || l != want {
			t.Errorf("%s: %+v, %v", text, l, err)
		}
	}
	for _, text := range []string{
		"s3://", "s3:///key", "s3://b/key", "s3://Bu^cket/key", "s3://bucket:80/key", "s3://id:secret@bucket/key", "s3://id:secret@bucket:x/key",
		"s3://bucket/a#b", "s3://bucket/%zz", "s3://bucket/%00", "s3://bucket/%ff", "s3://bucket/a?acl", "s3://bucket/a?x=1",
		"s3://bucket/" + strings.Repeat("k", keyMax+1),
	} {
		_, err := parseURL(text)
		e, ok := errors.AsType[*cli.Error](err)
		if !ok || e.Code != cli.ExitUsage || e.Hint == "" {
			t.Errorf("%s: %v, want an error with a hint and exit code %d", text, err, cli.ExitUsage)
		} else if strings.Contains(e.Error(), "secret") {
			t.Errorf("%s: the error tells the secret: %v", text, err)
		}
	}
}

func TestS3Config(t *testing.T) {
	const config = `
[default]
region = eu-north-1
[profile other]
region = eu-south-1
endpoint_url = https://other.example
[profile mixed]
services = local
endpoint_url = https://all.example
[services local]
s3 =
  endpoint_url = http://s3.example:9000
ec2 =
  endpoint_url = http://ec2.example
`
	const keys = "[default]\naws_access_key_id = A\naws_secret_access_key = B\n[other]\nregion = eu-east-1\n"
	home := func(t *testing.T) {
		env(t, "", "", "")
		dir := filepath.Join(os.Getenv("HOME"), ".aws")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"config": config, "credentials": keys} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name             string
		env              map[string]string
		location         location
		endpoint, region string
	}{
		{name: "default profile", endpoint: amazon, region: "eu-north-1"},
		{"profile", map[string]string{"AWS_PROFILE": "other"}, location{}, "https://other.example", "eu-east-1"},
		{"services", map[string]string{"AWS_PROFILE": "mixed"}, location{}, "http://s3.example:9000", anyRegion},
		{"variables", map[string]string{"AWS_PROFILE": "other", "AWS_ENDPOINT_URL": "http://v.example", "AWS_DEFAULT_REGION": "d"}, location{}, "http://v.example", "d"},
		{"variables of S3", map[string]string{"AWS_ENDPOINT_URL_S3": "http://s.example/", "AWS_ENDPOINT_URL": "http://v.example", "AWS_REGION": "r", "AWS_DEFAULT_REGION": "d"},
			location{}, "http://s.example/", "r"},
		{"URL", map[string]string{"AWS_ENDPOINT_URL": "http://v.example", "AWS_REGION": "r"}, location{endpoint: "https://u.example:1", region: "u"}, "https://u.example:1", "u"},
	} {
		t.Run(c.name, func(t *testing.T) {
			home(t)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			got, err := loadConfig(c.location)
			if err != nil || got.endpoint.String() != c.endpoint || got.region != c.region {
				t.Errorf("%v, %q, %v; want %s, %q", got.endpoint, got.region, err, c.endpoint, c.region)
			}
		})
	}
	t.Run("nothing", func(t *testing.T) {
		env(t, "", "", "")
		if got, err := loadConfig(location{}); err != nil || got.endpoint.String() != amazon || got.region != "" {
			t.Errorf("%v, %q, %v", got.endpoint, got.region, err)
		}
	})
	for _, endpoint := range []string{"host:9000", "ftp://host", "http://", "http://id:secret@host", "http://host/path", "http://host?x"} {
		t.Run(endpoint, func(t *testing.T) {
			env(t, endpoint, "", "")
			_, err := loadConfig(location{})
			if e, ok := errors.AsType[*cli.Error](err); !ok || e.Code != cli.ExitUsage || strings.Contains(e.Error(), "secret") {
				t.Errorf("%v, want exit code %d", err, cli.ExitUsage)
			}
		})
	}
}

func TestS3Credentials(t *testing.T) {
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			io.WriteString(w, "token")
		case r.URL.Path == credentials.DefaultIAMSecurityCredsPath:
			io.WriteString(w, "role")
		default:
			io.WriteString(w, `{"Code":"Success","AccessKeyId":"ROLE","SecretAccessKey":"S","Token":"T","Expiration":"2999-01-01T00:00:00Z"}`)
		}
	}))
	defer metadata.Close()
	const file = "[default]\naws_access_key_id = FILE\naws_secret_access_key = B\n[other]\naws_access_key_id = OTHER\naws_secret_access_key = C\n[half]\naws_access_key_id = D\n"
	for _, c := range []struct {
		name string
		file bool
		env  map[string]string
		o    servers.Options
		want string // the key's id, or what the error tells
	}{
		{name: "variables", file: true, env: map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "S"}, want: "ENV"},
		{name: "half of the variables", file: true, env: map[string]string{"AWS_ACCESS_KEY_ID": "ENV"}, want: "only one"},
		{name: "user", file: true, env: map[string]string{"AWS_ACCESS_KEY_ID": "ENV", "AWS_SECRET_ACCESS_KEY": "S", "FLATIMG_PASSWORD": "P"}, o: servers.Options{User: "USER"}, want: "USER"},
		{name: "user without a password", env: map[string]string{"FLATIMG_PASSWORD": ""}, o: servers.Options{User: "USER"}, want: "without a password"},
		{name: "file", file: true, want: "FILE"},
		{name: "profile", file: true, env: map[string]string{"AWS_PROFILE": "other"}, want: "OTHER"},
		{name: "no such profile", file: true, env: map[string]string{"AWS_PROFILE": "none"}, want: "profile none"},
		{name: "half a profile", file: true, env: map[string]string{"AWS_PROFILE": "half"}, want: "profile half"},
		{name: "role", env: map[string]string{"AWS_EC2_METADATA_DISABLED": "", "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.URL}, want: "ROLE"},
		{name: "nothing", want: "no keys are configured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			env(t, "", "", "")
			if c.file {
				path := filepath.Join(t.TempDir(), "keys")
				if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
					t.Fatal(err)
				}
				t.Setenv("AWS_SHARED_CREDENTIALS_FILE", path)
			}
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			config, err := loadConfig(location{})
			if err != nil {
				t.Fatal(err)
			}
			keys, err := loadCredentials(t.Context(), config, c.o)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) || cli.Hint(err) == "" {
					t.Errorf("%v, want %s", err, c.want)
				}
				return
			}
			if v, err := keys.GetWithContext(nil); err != nil || v.AccessKeyID != c.want {
				t.Errorf("%s, %v; want %s", v.AccessKeyID, err, c.want)
			}
		})
	}
}

// TestS3NoRole asks a metadata address that does not answer.
func TestS3NoRole(t *testing.T) {
	ended := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ended }))
	defer hanging.Close()
	defer close(ended)
	env(t, "", "", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "")
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", hanging.URL)
	start := time.Now()
	_, err := Open(t.Context(), "s3://bucket/key", servers.Options{})
	if took := time.Since(start); took > tokenPatience-2*time.Second {
		t.Errorf("took %v", took)
	}
	e, ok := errors.AsType[*cli.Error](err)
	if !ok || e.Code != cli.ExitServer || !strings.Contains(e.Hint, "AWS_ACCESS_KEY_ID") {
		t.Errorf("%v, want a hint that lists the variables", err)
	}
}

func TestS3PartSize(t *testing.T) {
	for _, c := range []struct {
		size, part int64
		count      int
	}{
		{0, usualPart, 1}, {1, usualPart, 1}, {usualPart, usualPart, 1}, {usualPart + 1, usualPart, 2},
		{usualPart * maxParts, usualPart, maxParts},
		{usualPart*maxParts + 1, usualPart + 1<<20, 9412},
		{maxObject, 525 << 20, 9987},
	} {
		if part := partSize(c.size); part != c.part || partCount(c.size, part) != c.count {
			t.Errorf("%d bytes: %d parts of %d, want %d of %d", c.size, partCount(c.size, part), part, c.count, c.part)
		}
	}
}

func TestS3Section(t *testing.T) {
	src := servertest.NewSource(10_000, servertest.Data(100, 50), servertest.Data(1000, 4000), servertest.Data(9_990, 10))
	all := servertest.Content(t, src)
	for _, workers := range []int{1, mostMemory} { // in memory, and read twice
		for _, r := range []transfer.Chunk{{Off: 0, Length: 10_000}, {Off: 0, Length: 100}, {Off: 120, Length: 10}, {Off: 120, Length: 1000}, {Off: 4999, Length: 5001}, {Off: 5000, Length: 1000}, {Off: 10_000, Length: 0}} {
			memory, err := newMemory(r.Length, workers)
			if err != nil {
				t.Fatal(err)
			}
			s, err := newSection(src, r.Off, r.Length, memory)
			if err != nil {
				t.Fatal(err)
			}
			want := all[r.Off : r.Off+r.Length]
			wantSum := sha256.Sum256(want)
			if sum, err := s.sum(sha256.New()); err != nil || !bytes.Equal(sum, wantSum[:]) {
				t.Errorf("%+v: the checksum is wrong: %v", r, err)
			}
			if err := iotest.TestReader(&reader{section: s, data: s.data}, want); err != nil {
				t.Errorf("%+v: %v", r, err)
			}
			var sent int64
			reader := &reader{section: s, data: s.data, sent: func(n int64) { sent += n }}
			io.Copy(io.Discard, reader)
			if sent != s.dataSize() {
				t.Errorf("%+v: %d bytes counted, want %d", r, sent, s.dataSize())
			}
			reader.end(false)
			if sent != 0 {
				t.Errorf("%+v: %d bytes still counted", r, sent)
			}
			if _, err := reader.Read(make([]byte, 1)); err != errReaderEnded {
				t.Errorf("%+v: read after the end: %v", r, err)
			}
			memory.free()
		}
	}
}

func TestCompositeETag(t *testing.T) {
	// What md5sum says of "a" and of "b", and of both as 32 bytes.
	parts := []sent{{etag: "0cc175b9c0f1b6a831c399e269772661"}, {etag: "92eb5ffee6ae2fec3ad71c777531578f"}}
	if etag, ok := compositeETag(parts); !ok || etag != "96e024ba2074fe77e8e965ba43a704be-2" {
		t.Errorf("%s, %v", etag, ok)
	}
	if _, ok := compositeETag([]sent{{etag: "no checksum"}}); ok {
		t.Error("an ETag of something else has a composite")
	}
}
