package main

import (
	"context"
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
	size := b.scaled(1024 * mib)
	b.scoped(func() {
		server := rig.Versitygw(b)
		file := b.randomFile(size, 4*mib, false)
		m := b.alternate(
			b.uploaded(filepath.Join(server.BucketDir, "ours.raw"), func() {
				cmd := rig.Command(rig.Binary(b), "export", "--quiet", "--stream", file, "s3://"+server.Bucket+"/ours.raw")
				cmd.Env = append(os.Environ(), append(server.Env(), "AWS_ENDPOINT_URL="+server.URL)...)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				if err := cmd.Run(); err != nil {
					b.Fatalf("export to S3: %v: %s", err, stderr.String())
				}
			}),
			b.uploaded(filepath.Join(server.BucketDir, "peer.raw"), func() { b.minioUpload(server, file, "peer.raw") }),
		)
		figures = []figure{throughput("S3 --stream of a ready file against minio-go", size, m, 1)}
	})
	return figures
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
