package servers

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
)

var _ = (Verifier)((*httpUpload)(nil))
var _ = (ReadBacker)((*httpUpload)(nil))

// sentTo is where the bytes are until Publish.
func (u *httpUpload) sentTo() webAddress {
	if u.direct || u.published {
		return u.to
	}
	return u.part()
}

// Verify implements [Verifier] for the few servers that tell a checksum.
func (u *httpUpload) Verify(ctx context.Context, want []byte) (string, error) {
	if want == nil {
		return "", noVerification(u.String(), "the SHA-256 is not known")
	}
	sum, err := u.client.checksum(ctx, u.sentTo(), u.src.Size(), "sha256")
	switch {
	case err != nil:
		return "", u.fail("ask for its checksum", err)
	case sum == nil:
		return "", noVerification(u.String(), "the server tells no SHA-256")
	case !bytes.Equal(sum.Sum, want):
		return "", Differs(u.String(), sum.Sum, sum.By, want)
	}
	return sum.By, nil
}

// ReadBack implements [ReadBacker].
func (u *httpUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	return u.fail("read it back", u.client.readAll(ctx, u.sentTo(), w, off, length))
}

// readAll is readRange that goes on after what may pass.
func (c *webClient) readAll(ctx context.Context, a webAddress, w io.Writer, off, length int64) error {
	return c.retry.own().readAll(ctx, "read", w, off, length, func(w io.Writer, off, length int64) error {
		return c.readRange(ctx, a, w, off, length)
	})
}

// checksum returns the best that the server tells of a file of size bytes, or
// only one of that algorithm unless it is empty; nil: none.
func (c *webClient) checksum(ctx context.Context, a webAddress, size int64, algorithm string) (*Checksum, error) {
	resp, err := c.do(ctx, "ask for the checksum", webRequest{
		method: "HEAD", to: a, limit: sizeLimit(size),
		header: map[string]string{
			"Want-Repr-Digest": "sha-256=10, sha-512=5", "Want-Digest": "SHA-256;q=1, SHA-512;q=0.5",
			"Accept-Encoding": "identity",
		},
	})
	if unlessMissing(err) != nil {
		return nil, err
	}
	if err != nil || resp.Header.Get("Content-Encoding") != "" {
		return nil, nil
	}
	for _, sum := range digests(resp.Header) {
		if algorithm == "" || sum.Algorithm == algorithm {
			return &sum, nil
		}
	}
	return nil, nil
}

// digests returns the checksums of the whole file that the header of an answer
// to HEAD tells, the best first: Repr-Digest (RFC 9530), Digest (RFC 3230),
// Content-MD5 (RFC 2616).
func digests(h http.Header) []Checksum {
	told := map[string]Checksum{}
	add := func(header, key, value string) {
		algorithm := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "-", "")
		sum, err := base64.StdEncoding.DecodeString(value)
		lengths := map[string]int{"sha256": 32, "sha512": 64, "md5": 16}
		if _, ok := told[algorithm]; err == nil && !ok && len(sum) == lengths[algorithm] && len(sum) > 0 {
			told[algorithm] = Checksum{Algorithm: algorithm, Sum: sum, By: "the server's " + header}
		}
	}
	for _, header := range []string{"Repr-Digest", "Digest"} {
		for _, item := range strings.Split(strings.Join(h.Values(header), ","), ",") {
			key, value, _ := strings.Cut(item, "=")
			if header == "Repr-Digest" {
				// A byte sequence stands in colons (RFC 9651).
				value = strings.Trim(strings.TrimSpace(value), ":")
			}
			add(header, key, strings.TrimSpace(value))
		}
	}
	add("Content-MD5", "md5", h.Get("Content-MD5"))
	var sums []Checksum
	for _, algorithm := range []string{"sha256", "sha512", "md5"} {
		if sum, ok := told[algorithm]; ok {
			sums = append(sums, sum)
		}
	}
	return sums
}
