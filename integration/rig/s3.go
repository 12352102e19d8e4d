package rig

import (
	"os"
	"os/exec"
	"path/filepath"
)

// S3Server is an S3 server with one bucket. Its Dir holds a folder for each
// bucket, and therein a file for each object.
type S3Server struct {
	*Server
	// URL is the endpoint: http://HOST:PORT.
	URL                  string
	AccessKey, SecretKey string
	Region               string
	// Bucket is there, and empty; BucketDir is its folder.
	Bucket, BucketDir string
}

// Versitygw starts a Versity S3 gateway; it ends with the test.
func Versitygw(t T) *S3Server {
	t.Helper()
	versitygw := Need(t, "versitygw")
	s := newServer(t, "versitygw")
	v := &S3Server{
		Server: s, AccessKey: "tester", SecretKey: "secret-of-tester", Region: "us-east-1",
		Bucket: "images", BucketDir: filepath.Join(s.Dir, "images"),
	}
	makeDirs(t, v.BucketDir)
	s.serve(t, 1, func([]int) *exec.Cmd {
		cmd := Command(versitygw, "--port", s.Address, "--region", v.Region, "posix", s.Dir)
		cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+v.AccessKey, "ROOT_SECRET_KEY="+v.SecretKey)
		return cmd
	})
	v.URL = "http://" + s.Address
	return v
}

// Env returns the variables that clients take keys and region from.
func (v *S3Server) Env() []string {
	return []string{"AWS_ACCESS_KEY_ID=" + v.AccessKey, "AWS_SECRET_ACCESS_KEY=" + v.SecretKey, "AWS_REGION=" + v.Region}
}
