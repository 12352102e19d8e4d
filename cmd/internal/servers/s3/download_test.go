package s3

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

var modified = time.Unix(1_700_000_000, 0)

func TestS3Checksum(t *testing.T) {
	content := []byte("content")
	sum := md5.Sum(content)
	plain := hex.EncodeToString(sum[:])
	for _, c := range []struct {
		name, etag string
		header     map[string]string
		want       string // the algorithm; empty: unsupported
	}{
		{"MD5", plain, nil, "md5"},
		{"parts", plain + "-3", nil, ""},
		{"opaque", "opaque", nil, ""},
		{"SHA-256", plain + "-3", map[string]string{"X-Amz-Checksum-Sha256": sha256Text(content)}, "sha256"},
		{"SHA-256 of parts", plain + "-3", map[string]string{"X-Amz-Checksum-Sha256": sha256Text(content) + "-3"}, ""},
		{"SHA-256 of one part", plain + "-1", map[string]string{"X-Amz-Checksum-Sha256": sha256Text(content), "X-Amz-Checksum-Type": "COMPOSITE"}, ""},
		{"encrypted", plain, map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms"}, ""},
	} {
		fake := &fakeServer{object: content, tag: c.etag}
		fake.odd = func(w http.ResponseWriter, _ *http.Request) bool {
			for name, value := range c.header {
				w.Header().Set(name, value)
			}
			return false
		}
		startFake(t, fake)
		d, err := OpenSource(t.Context(), "s3://bucket/key", servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		got, err := d.(servers.Summer).Checksum(t.Context())
		if got.Algorithm != c.want || (c.want == "") != errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %+v, %v; want %q", c.name, got, err, c.want)
		}
	}
}

func TestS3OddReads(t *testing.T) {
	content := []byte("0123456789")
	for _, c := range []struct {
		name string
		odd  func(w http.ResponseWriter, r *http.Request)
		want string
	}{
		{"no ranges", func(w http.ResponseWriter, _ *http.Request) { w.Write(content) }, "answers"},
		{"another range", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 3-6/10")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content[3:7])
		}, "answers"},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 2-5/10")
			w.Header().Set("Content-Length", "4")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content[2:4])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, io.ErrUnexpectedEOF.Error()},
		{"too short", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 2-5/10")
			w.Header().Set("Content-Length", "2")
			w.WriteHeader(http.StatusPartialContent)
			w.Write(content[2:4])
		}, io.ErrUnexpectedEOF.Error()},
	} {
		fake := &fakeServer{object: content, tag: "tag"}
		fake.odd = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet {
				return false
			}
			w.Header().Set("ETag", `"tag"`)
			w.Header().Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
			c.odd(w, r)
			return true
		}
		startFake(t, fake)
		d, err := OpenSource(t.Context(), "s3://bucket/key", servers.Options{})
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := d.Read(t.Context(), &got, 2, 4); err == nil || !strings.Contains(err.Error(), c.want) || got.Len() > 4 {
			t.Errorf("%s: %q, %v; want an error with %q", c.name, got.String(), err, c.want)
		}
		for _, r := range []transfer.Chunk{{Off: -1, Length: 2}, {Off: 0, Length: 11}, {Off: 11, Length: 0}, {Off: 9, Length: 1 << 62}} {
			if err := d.Read(t.Context(), io.Discard, r.Off, r.Length); err == nil {
				t.Errorf("%+v of %d bytes was read", r, len(content))
			}
		}
		d.Close()
	}
}

func TestS3NoSource(t *testing.T) {
	startFake(t, &fakeServer{})
	for src, want := range map[string]string{"s3://bucket/key": "NoSuchKey", "s3://bucket/folder/": "no object", "s3://bucket": "no object"} {
		if _, err := OpenSource(t.Context(), src, servers.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want one with %q", src, err, want)
		}
	}
}
