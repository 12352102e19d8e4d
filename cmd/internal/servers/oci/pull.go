package oci

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"slices"
	"strings"

	"flatimg/cmd/internal/servers/transfer"
)

// maxManifest is what registries must take of a manifest, in bytes
// (specification, "Pushing Manifests").
const maxManifest = 4 << 20

// pullManifest returns the manifest of the image for this machine's processor,
// else for the usual one, else the only one there is.
func (c *registry) pullManifest(ctx context.Context) (manifest, error) {
	m, err := c.manifest(ctx, c.ref.tag)
	if err != nil || len(m.Manifests) == 0 {
		return m, err
	}
	d, err := chooseImage(m.Manifests, runtime.GOARCH)
	if err != nil {
		return manifest{}, err
	}
	return c.manifest(ctx, d.Digest)
}

// chooseImage chooses one of an index.
func chooseImage(images []descriptor, arch string) (descriptor, error) {
	// Attestations stand beside images, for the platform unknown/unknown.
	images = slices.DeleteFunc(slices.Clone(images), func(d descriptor) bool {
		return d.Platform != nil && d.Platform.OS == "unknown" || !digestPattern.MatchString(d.Digest)
	})
	if len(images) == 1 {
		return images[0], nil
	}
	for _, arch := range []string{arch, "amd64"} {
		for _, d := range images {
			if d.Platform != nil && d.Platform.OS == "linux" && d.Platform.Architecture == arch {
				return d, nil
			}
		}
	}
	return descriptor{}, transfer.Lasting(fmt.Errorf("none of its %d images is for linux/%s", len(images), arch))
}

// manifest fetches one by tag or digest; what a digest names is compared with
// it.
func (c *registry) manifest(ctx context.Context, reference string) (manifest, error) {
	resp, err := c.do(ctx, request{
		method: http.MethodGet, url: c.ref.url("manifests/" + reference),
		header: map[string]string{"Accept": manifestTypes}, want: []int{http.StatusOK},
	})
	if err != nil {
		return manifest{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return manifest{}, err
	}
	if len(text) > maxManifest {
		return manifest{}, transfer.Lasting(errors.New("the manifest is larger than 4 MiB"))
	}
	if got := digestOf(sha256.Sum256(text)); strings.HasPrefix(reference, "sha256:") && got != reference {
		return manifest{}, fmt.Errorf("the manifest %s has the digest %s", reference, got)
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return manifest{}, transfer.Lasting(fmt.Errorf("the manifest: %w", err))
	}
	if m.SchemaVersion != 2 {
		return manifest{}, transfer.Lasting(fmt.Errorf("a manifest of version %d is not supported", m.SchemaVersion))
	}
	return m, nil
}
