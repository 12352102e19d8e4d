package web

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"

	"flatimg/cmd/internal/servers"
)

// Checksum returns the best that the server tells of a file of size bytes, or
// only one of that algorithm unless it is empty; nil: none.
func (c *Client) Checksum(ctx context.Context, a Address, size int64, algorithm string) (*servers.Checksum, error) {
	resp, err := c.Do(ctx, "ask for the checksum", Request{
		Method: "HEAD", To: a, Limit: SizeLimit(size),
		Header: map[string]string{
			"Want-Repr-Digest": "sha-256=10, sha-512=5", "Want-Digest": "SHA-256;q=1, SHA-512;q=0.5",
			"Accept-Encoding": "identity",
		},
	})
	if UnlessMissing(err) != nil {
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
func digests(h http.Header) []servers.Checksum {
	told := map[string]servers.Checksum{}
	add := func(header, key, value string) {
		algorithm := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(key)), "-", "")
		sum, err := base64.StdEncoding.DecodeString(value)
		lengths := map[string]int{"sha256": 32, "sha512": 64, "md5": 16}
		if _, ok := told[algorithm]; err == nil && !ok && len(sum) == lengths[algorithm] && len(sum) > 0 {
			told[algorithm] = servers.Checksum{Algorithm: algorithm, Sum: sum, By: "the server's " + header}
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
	var sums []servers.Checksum
	for _, algorithm := range []string{"sha256", "sha512", "md5"} {
		if sum, ok := told[algorithm]; ok {
			sums = append(sums, sum)
		}
	}
	return sums
}
