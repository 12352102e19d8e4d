// Package oci sends disks to registries (OCI distribution specification 1.1) as
// images that KubeVirt boots from, and fetches them.
package oci

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

const (
	// linkTries is how often a manifest is sent to a registry that does not see
	// yet what it has just got, with linkWait in between.
	linkTries = 5
	linkWait  = 300 * time.Millisecond
	// unknownDigest stands for one that the registry does not tell.
	unknownDigest = "unknown"
)

// upload is an upload of an image of one file, as KubeVirt boots from it (a
// containerDisk), to a registry.
//
// The layer and the configuration are blobs, which nobody sees before a manifest
// names them: putting it under its tag publishes the file, whole and at once. A
// registry has no way to put a manifest only where there is none: of two exports
// to one tag that both find it free, the later one's stays, which the other one
// tells as a failure if it comes to see it.
//
// Blobs that no manifest names remain until the registry's garbage collection.
type upload struct {
	*registry
	name  string // of the file in the image
	force bool
	retry *transfer.Retrier
	state uploadState
	chunk int64 // bytes of the layer that a request carries
	grace time.Duration

	at    *url.URL // of an unfinished upload; nil: none
	layer descriptor
	head  int64  // bytes of the layer before the file
	image []byte // the manifest
}

var _ = (servers.Checker)((*upload)(nil))
var _ = (servers.Verifier)((*upload)(nil))
var _ = (servers.ReadBacker)((*upload)(nil))
var _ = (servers.Namer)((*upload)(nil))

// Open opens the image that a URL names as a destination.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	ref, err := parseRef(dest, o.Name, o.CACert != "")
	if err != nil {
		return nil, err
	}
	if digestPattern.MatchString(ref.tag) {
		return nil, transfer.Usage(fmt.Errorf("%s: a digest is not known before", ref), "give a tag in its place")
	}
	client, err := newRegistry(ctx, ref, "pull,push", o)
	if err != nil {
		return nil, err
	}
	u := &upload{registry: client, name: o.Name, force: o.Force, retry: transfer.NewRetrier(o), chunk: layerChunk, grace: chunkGrace}
	if err := u.open(ctx, o.Resume); err != nil {
		client.close()
		return nil, err
	}
	return u, nil
}

func (u *upload) open(ctx context.Context, resume json.RawMessage) error {
	if resume != nil {
		if err := json.Unmarshal(resume, &u.state); err != nil {
			return fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
		}
		if at, err := url.Parse(u.state.Upload); err == nil && u.state.Upload != "" {
			u.at, _ = u.checkLocation(at)
		}
	}
	var digest string
	err := u.retry.Meet(ctx, "look for the tag", func() (err error) {
		digest, err = u.tagged(ctx)
		return err
	})
	if err != nil {
		return u.failed(ctx, "look for the tag", err)
	}
	if digest != "" && !u.force && digest != u.state.image() {
		return transfer.Exists(u.String())
	}
	return nil
}

func (u *upload) String() string { return u.ref.String() }

// FileName implements [servers.Namer].
func (u *upload) FileName() string { return u.name }

// tagged returns the digest of what the tag names now; empty: nothing. A
// registry that does not tell it is [unknownDigest].
func (u *upload) tagged(ctx context.Context) (string, error) {
	resp, err := u.do(ctx, request{
		method: http.MethodHead, url: u.ref.url("manifests/" + u.ref.tag),
		header: map[string]string{"Accept": manifestTypes}, want: []int{http.StatusOK},
	})
	if web.HasStatus(err, http.StatusNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	web.Drain(resp)
	if digest := resp.Header.Get("Docker-Content-Digest"); digest != "" {
		return digest, nil
	}
	return unknownDigest, nil
}

// Check implements [servers.Checker]: the format is one that KubeVirt boots from,
// and the registry lets the user push.
func (u *upload) Check(ctx context.Context, f servers.File) error {
	if f.Format != "qcow2" && f.Format != "raw" {
		return transfer.Usage(fmt.Errorf("%s: KubeVirt does not boot from %s", u, f.Format), "--format qcow2 or raw")
	}
	err := u.retry.Do(ctx, "begin an upload", func() error {
		at, _, err := u.beginBlob(ctx)
		if err == nil {
			err = u.cancelBlob(ctx, at)
		}
		return err
	})
	return transfer.ServerError(u.String(), "begin an upload", err)
}

// Send implements [servers.Upload].
func (u *upload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	layer, err := newLayer(src, u.name)
	if err != nil {
		return transfer.Usage(fmt.Errorf("%s: %w", u, err), "give the file another name")
	}
	u.head = int64(len(layer.head))
	u.retry.Say = log.Say
	s := &layerSender{registry: u.registry, layer: layer, retry: u.retry, log: log, chunk: u.chunk, grace: u.grace}
	u.layer, err = s.send(ctx, u.state)
	u.at = s.at
	if err != nil {
		return u.failed(ctx, "send the layer", err)
	}
	config, image, err := imageOf(u.layer)
	if err != nil {
		return err
	}
	u.image = image
	err = u.retry.Do(ctx, "send the configuration", func() error { return u.pushBlob(ctx, config, describe(typeConfig, config)) })
	return u.failed(ctx, "send the configuration", err)
}

// failed is [transfer.ServerError], but for an interrupt.
func (u *upload) failed(ctx context.Context, what string, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return transfer.ServerError(u.String(), what, err)
}

// Verify implements [servers.Verifier]. The registry has compared the digest of
// the layer when it was finished; whether it still has it, is asked here.
func (u *upload) Verify(ctx context.Context, _ []byte) (string, error) {
	err := u.retry.Do(ctx, "look for the layer", func() error {
		has, err := u.hasBlob(ctx, u.layer)
		if err == nil && !has {
			err = transfer.Lasting(fmt.Errorf("the registry has not got the layer %s", u.layer.Digest))
		}
		return err
	})
	return "digest, by the registry", u.failed(ctx, "look for the layer", err)
}

// ReadBack implements [servers.ReadBacker].
func (u *upload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	err := u.retry.ReadAll(ctx, "read it back", w, off, length, func(w io.Writer, off, length int64) error {
		body, err := u.blob(ctx, u.layer, u.head+off, u.head+off+length)
		if err != nil {
			return err
		}
		defer body.Close()
		return transfer.CopyExactly(w, body, length)
	})
	return u.failed(ctx, "read it back", err)
}

// Publish implements [servers.Upload].
func (u *upload) Publish(ctx context.Context) error {
	published := describe(typeManifest, u.image).Digest
	links := 0
	err := u.retry.Do(ctx, "put the manifest", func() error {
		for {
			// After a lost answer, and when the same file was exported before,
			// nothing is left to do.
			if digest, err := u.tagged(ctx); err != nil || digest == published {
				return err
			} else if digest != "" && !u.force {
				return transfer.Exists(u.String())
			}
			err := u.putManifest(ctx)
			if err == nil && !u.force {
				return u.checkStays(ctx, published)
			}
			if links++; err == nil || links == linkTries || !isUnlinked(err) {
				return err
			}
			select {
			case <-time.After(linkWait):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	if err == nil {
		u.at = nil
	}
	return u.failed(ctx, "put the manifest", err)
}

// checkStays looks whether another export that found the tag free has put its
// manifest after this one.
func (u *upload) checkStays(ctx context.Context, published string) error {
	digest, err := u.tagged(ctx)
	if err == nil && digest != "" && digest != unknownDigest && digest != published {
		return transfer.Exists(u.String())
	}
	return nil
}

func (u *upload) putManifest(ctx context.Context) error {
	resp, err := u.do(ctx, request{
		method: http.MethodPut, url: u.ref.url("manifests/" + u.ref.tag), header: map[string]string{"Content-Type": typeManifest},
		body: func() io.ReadCloser { return io.NopCloser(bytes.NewReader(u.image)) }, size: int64(len(u.image)),
		want: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent},
	})
	if err == nil {
		web.Drain(resp)
	}
	return err
}

// isUnlinked says whether a manifest was refused for a blob that the registry
// has got, but not noted yet as one of the repository's: the Docker registry
// rewrites that note while somebody else pushes the same blob, and finds none in
// it meanwhile, or no digest.
func isUnlinked(err error) bool {
	e, ok := errors.AsType[*web.Error](err)
	return ok && (strings.HasPrefix(e.Text, "MANIFEST_BLOB_UNKNOWN") || strings.HasPrefix(e.Text, "DIGEST_INVALID"))
}

// Close implements [servers.Upload]. An upload that the registry does not find,
// which is also what the Docker registry says of one that was cut, it forgets by
// itself.
func (u *upload) Close(keep bool) error {
	defer u.close()
	if keep || u.at == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), web.CloseLimit)
	defer cancel()
	if err := u.cancelBlob(ctx, u.at); err != nil {
		return fmt.Errorf("%s: an unfinished upload is left over until the registry forgets it: %w", u, err)
	}
	return nil
}
