package servers

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
)

const (
	// closeGrace is how long the removal of what was not published may take.
	closeGrace = 5 * time.Second
	// linkTries is how often a manifest is sent to a registry that does not see
	// yet what it has just got, with linkWait in between.
	linkTries = 5
	linkWait  = 300 * time.Millisecond
)

// ociUpload is an upload of an image of one file, as KubeVirt boots from it (a
// containerDisk), to a registry.
//
// The layer and the configuration are blobs, which nobody sees before a manifest
// names them: putting it under its tag publishes the file, whole and at once. A
// registry has no way to put a manifest only where there is none: of two exports
// to one tag that both find it free, the later one's stays, which the other one
// tells as a failure if it comes to see it.
//
// Blobs that no manifest names remain until the registry's garbage collection.
type ociUpload struct {
	*ociClient
	name  string // of the file in the image
	force bool
	retry *retrier
	state ociState
	chunk int64 // bytes of the layer that a request carries
	grace time.Duration

	at    *url.URL // of an unfinished upload; nil: none
	layer descriptor
	head  int64  // bytes of the layer before the file
	image []byte // the manifest
}

var _ = (Checker)((*ociUpload)(nil))
var _ = (Verifier)((*ociUpload)(nil))
var _ = (ReadBacker)((*ociUpload)(nil))
var _ = (Namer)((*ociUpload)(nil))

func openOCI(ctx context.Context, dest string, o Options) (Upload, error) {
	ref, err := parseOCI(dest, o.Name, o.CACert != "")
	if err != nil {
		return nil, err
	}
	if ociDigest.MatchString(ref.tag) {
		return nil, usage(fmt.Errorf("%s: a digest is not known before", ref), "give a tag in its place")
	}
	client, err := newOCIClient(ctx, ref, "pull,push", o)
	if err != nil {
		return nil, err
	}
	u := &ociUpload{ociClient: client, name: o.Name, force: o.Force, retry: newRetrier(o), chunk: layerChunk, grace: chunkGrace}
	if err := u.open(ctx, o.Resume); err != nil {
		client.close()
		return nil, err
	}
	return u, nil
}

func (u *ociUpload) open(ctx context.Context, resume json.RawMessage) error {
	if resume != nil {
		if err := json.Unmarshal(resume, &u.state); err != nil {
			return fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
		}
		if at, err := url.Parse(u.state.Upload); err == nil && u.state.Upload != "" {
			u.at, _ = u.checkLocation(at)
		}
	}
	var digest string
	err := u.retry.meet(ctx, "look for the tag", func() (err error) {
		digest, err = u.tagged(ctx)
		return err
	})
	if err != nil {
		return u.failed(ctx, "look for the tag", err)
	}
	if digest != "" && !u.force && digest != u.state.image() {
		return exists(u.String())
	}
	return nil
}

func (u *ociUpload) String() string { return u.ref.String() }

// FileName implements [Namer].
func (u *ociUpload) FileName() string { return u.name }

// tagged returns the digest of what the tag names now; empty: nothing. A
// registry that does not tell it is unknownDigest.
func (u *ociUpload) tagged(ctx context.Context) (string, error) {
	resp, err := u.do(ctx, ociRequest{
		method: http.MethodHead, url: u.ref.url("manifests/" + u.ref.tag),
		header: map[string]string{"Accept": manifestTypes}, want: []int{http.StatusOK},
	})
	if hasStatus(err, http.StatusNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	drain(resp)
	if digest := resp.Header.Get("Docker-Content-Digest"); digest != "" {
		return digest, nil
	}
	return unknownDigest, nil
}

const unknownDigest = "unknown"

// Check implements [Checker]: the format is one that KubeVirt boots from, and
// the registry lets the user push.
func (u *ociUpload) Check(ctx context.Context, f File) error {
	if f.Format != "qcow2" && f.Format != "raw" {
		return usage(fmt.Errorf("%s: KubeVirt does not boot from %s", u, f.Format), "--format qcow2 or raw")
	}
	err := u.retry.do(ctx, "begin an upload", func() error {
		at, _, err := u.beginBlob(ctx)
		if err == nil {
			err = u.cancelBlob(ctx, at)
		}
		return err
	})
	return serverError(u.String(), "begin an upload", err)
}

// Send implements [Upload].
func (u *ociUpload) Send(ctx context.Context, src Source, log Log) error {
	layer, err := newLayer(src, u.name)
	if err != nil {
		return usage(fmt.Errorf("%s: %w", u, err), "give the file another name")
	}
	u.head = int64(len(layer.head))
	u.retry.say = log.Say
	s := &layerSender{ociClient: u.ociClient, layer: layer, retry: u.retry, log: log, chunk: u.chunk, grace: u.grace}
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
	err = u.retry.do(ctx, "send the configuration", func() error { return u.pushBlob(ctx, config, describe(typeConfig, config)) })
	return u.failed(ctx, "send the configuration", err)
}

// failed is [serverError], but for an interrupt.
func (u *ociUpload) failed(ctx context.Context, what string, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return serverError(u.String(), what, err)
}

// Verify implements [Verifier]. The registry has compared the digest of the
// layer when it was finished; whether it still has it, is asked here.
func (u *ociUpload) Verify(ctx context.Context, _ []byte) (string, error) {
	err := u.retry.do(ctx, "look for the layer", func() error {
		has, err := u.hasBlob(ctx, u.layer)
		if err == nil && !has {
			err = lasting{fmt.Errorf("the registry has not got the layer %s", u.layer.Digest)}
		}
		return err
	})
	return "digest, by the registry", u.failed(ctx, "look for the layer", err)
}

// ReadBack implements [ReadBacker].
func (u *ociUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	err := u.retry.readAll(ctx, "read it back", w, off, length, func(w io.Writer, off, length int64) error {
		body, err := u.blob(ctx, u.layer, u.head+off, u.head+off+length)
		if err != nil {
			return err
		}
		defer body.Close()
		return copyExactly(w, body, length)
	})
	return u.failed(ctx, "read it back", err)
}

// Publish implements [Upload].
func (u *ociUpload) Publish(ctx context.Context) error {
	published := describe(typeManifest, u.image).Digest
	links := 0
	err := u.retry.do(ctx, "put the manifest", func() error {
		for {
			// After a lost answer, and when the same file was exported before,
			// nothing is left to do.
			if digest, err := u.tagged(ctx); err != nil || digest == published {
				return err
			} else if digest != "" && !u.force {
				return exists(u.String())
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
func (u *ociUpload) checkStays(ctx context.Context, published string) error {
	digest, err := u.tagged(ctx)
	if err == nil && digest != "" && digest != unknownDigest && digest != published {
		return exists(u.String())
	}
	return nil
}

func (u *ociUpload) putManifest(ctx context.Context) error {
	resp, err := u.do(ctx, ociRequest{
		method: http.MethodPut, url: u.ref.url("manifests/" + u.ref.tag), header: map[string]string{"Content-Type": typeManifest},
		body: func() io.ReadCloser { return io.NopCloser(bytes.NewReader(u.image)) }, size: int64(len(u.image)),
		want: []int{http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent},
	})
	if err == nil {
		drain(resp)
	}
	return err
}

// isUnlinked says whether a manifest was refused for a blob that the registry
// has got, but not noted yet as one of the repository's: the Docker registry
// rewrites that note while somebody else pushes the same blob, and finds none in
// it meanwhile, or no digest.
func isUnlinked(err error) bool {
	e, ok := errors.AsType[*httpError](err)
	return ok && (strings.HasPrefix(e.Text, "MANIFEST_BLOB_UNKNOWN") || strings.HasPrefix(e.Text, "DIGEST_INVALID"))
}

// Close implements [Upload]. An upload that the registry does not find, which is
// also what the Docker registry says of one that was cut, it forgets by itself.
func (u *ociUpload) Close(keep bool) error {
	defer u.close()
	if keep || u.at == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if err := u.cancelBlob(ctx, u.at); err != nil {
		return fmt.Errorf("%s: an unfinished upload is left over until the registry forgets it: %w", u, err)
	}
	return nil
}
