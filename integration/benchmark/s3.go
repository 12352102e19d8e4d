package main

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"flatimg/integration/rig"
)

// s3 compares an export of a raw image that is sent as it is read with a
// multipart upload of the same file by minio-go's own client. The server's work
// is part of both.
func s3(b *bench) (figures []figure) {
	size := int64(1024 * mib)
	if b.quick {
		size /= 8
	}
	b.scoped(func() {
		server := rig.Versitygw(b)
		file := b.randomFile(size)
		b.warm([]string{file})
		m := b.alternate(
			b.s3Upload(server, "ours.raw", func() {
				cmd := rig.Command(rig.Binary(b), "export", "--quiet", "--stream", file, "s3://"+server.Bucket+"/ours.raw")
				cmd.Env = append(os.Environ(), append(server.Env(), "AWS_ENDPOINT_URL="+server.URL)...)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				if err := cmd.Run(); err != nil {
					b.Fatalf("export to S3: %v: %s", err, stderr.String())
				}
			}),
			b.s3Upload(server, "peer.raw", func() { b.minioUpload(server, file, "peer.raw") }),
		)
		figures = []figure{{
			what: "S3 --stream of a ready file against minio-go", ours: float64(size) / m[0], peer: float64(size) / m[1],
			unit: bytesPerSecond, goal: 1, atLeast: true,
		}}
	})
	return figures
}

// s3Upload times an upload to key, which is not there before, and must have
// arrived after.
func (b *bench) s3Upload(server *rig.S3Server, key string, upload func()) side {
	path := filepath.Join(server.BucketDir, key)
	return func() float64 {
		os.Remove(path)
		// What the run before has left to be written must not slow this one.
		b.command("sync")
		seconds := timed(upload)
		if _, err := os.Stat(path); err != nil {
			b.Fatalf("%s has not arrived: %v", key, err)
		}
		return seconds
	}
}

// minioUpload sends a file as programs with minio-go do.
func (b *bench) minioUpload(server *rig.S3Server, file, key string) {
	client, err := minio.New(server.Address, &minio.Options{
		Creds:  credentials.NewStaticV4(server.AccessKey, server.SecretKey, ""),
		Region: server.Region,
	})
	if err != nil {
		b.Fatalf("minio-go: %v", err)
	}
	if _, err := client.FPutObject(context.Background(), server.Bucket, key, file, minio.PutObjectOptions{}); err != nil {
		b.Fatalf("minio-go: %v", err)
	}
}

// randomFile returns the path of a file without holes.
func (b *bench) randomFile(size int64) string {
	path := filepath.Join(b.TempDir(), "ready.raw")
	f, err := os.Create(path)
	if err != nil {
		b.Fatalf("%v", err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.Reader, size); err != nil {
		b.Fatalf("%v", err)
	}
	return path
}
