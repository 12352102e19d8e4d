package oci

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"runtime"
)

// Media types of the OCI image specification 1.1, and those of Docker that
// stand for the same ("Compatibility matrix").
const (
	typeManifest       = "application/vnd.oci.image.manifest.v1+json"
	typeIndex          = "application/vnd.oci.image.index.v1+json"
	typeConfig         = "application/vnd.oci.image.config.v1+json"
	typeLayer          = "application/vnd.oci.image.layer.v1.tar"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// manifestTypes are all that are understood, as an Accept header has them.
const manifestTypes = typeManifest + ", " + typeIndex + ", " + typeDockerManifest + ", " + typeDockerList

// descriptor names a blob or a manifest by its content.
type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	// Size in bytes.
	Size     int64     `json:"size"`
	Platform *platform `json:"platform,omitempty"`
}

// platform is what an image of an index is for.
type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// manifest is an image, or the index of several where Manifests is not empty.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

// describe returns the descriptor of a blob in memory.
func describe(mediaType string, blob []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: digestOf(sha256.Sum256(blob)), Size: int64(len(blob))}
}

func digestOf(sum [sha256.Size]byte) string { return fmt.Sprintf("sha256:%x", sum) }

// imageOf returns the configuration and the manifest of an image of one layer.
func imageOf(layer descriptor) (config, image []byte, err error) {
	type rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	type history struct {
		CreatedBy string `json:"created_by"`
	}
	config, err = json.Marshal(struct {
		platform
		Config  struct{}  `json:"config"`
		RootFS  rootfs    `json:"rootfs"`
		History []history `json:"history"`
	}{
		platform: platform{runtime.GOARCH, "linux"},
		// An uncompressed layer's digest is that of its content.
		RootFS:  rootfs{"layers", []string{layer.Digest}},
		History: []history{{"flatimg export"}},
	})
	if err != nil {
		return nil, nil, err
	}
	described := describe(typeConfig, config)
	image, err = json.Marshal(manifest{SchemaVersion: 2, MediaType: typeManifest, Config: &described, Layers: []descriptor{layer}})
	return config, image, err
}
