package oci

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"time"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

const (
	// layerChunk is how much of a layer a request carries, in bytes: one that
	// is cut has to be sent again, and the last one before an interrupt should
	// end within [chunkGrace].
	layerChunk = 16 << 20
	// chunkGrace is how long a request may go on after an interrupt. A registry
	// that got a part of a chunk can't always go on.
	chunkGrace = 2 * time.Second
)

// uploadState is what the next run needs to go on.
type uploadState struct {
	// Size of the layer in bytes.
	Size int64 `json:"size"`
	// Upload is the URL of the unfinished upload.
	Upload string `json:"upload,omitempty"`
	// Offset before which all has arrived, and the state of SHA-256 over that.
	Offset int64  `json:"offset,omitempty"`
	Hash   []byte `json:"hash,omitempty"`
	// Digest of the layer once the registry has all of it.
	Digest string `json:"digest,omitempty"`
}

// image returns the digest of the manifest that an earlier run may have put just
// before it ended; empty: it had not come that far.
func (s uploadState) image() string {
	if s.Digest == "" {
		return ""
	}
	_, image, err := imageOf(descriptor{MediaType: typeLayer, Digest: s.Digest, Size: s.Size})
	if err != nil {
		return ""
	}
	return describe(typeManifest, image).Digest
}

// layerSender brings a layer to a registry.
type layerSender struct {
	*registry
	layer *layer
	retry *transfer.Retrier
	log   servers.Log

	chunk int64         // bytes a request carries
	grace time.Duration // how long one may go on after an interrupt

	at  *url.URL // of the upload; nil: there is none
	off int64    // before it all has arrived
	// sum is over what stands before summed, which is at most off.
	sum     hash.Hash
	summed  int64
	counted int64 // bytes of data that log knows of
	begun   int64 // how often this run has begun
}

// errNoChunks is for a registry that takes a blob in one piece only.
var errNoChunks = errors.New("the registry takes no chunks")

// send brings the layer to the registry, going on after what state says, and
// returns the layer's descriptor.
func (s *layerSender) send(ctx context.Context, state uploadState) (descriptor, error) {
	s.sum = sha256.New()
	done, err := s.resume(ctx, state)
	if err != nil {
		return descriptor{}, err
	}
	if done {
		return s.descriptor(state.Digest), nil
	}
	for {
		err := s.tryChunks(ctx)
		if errors.Is(err, errNoChunks) {
			return s.sendWhole(ctx)
		}
		if err == nil {
			return s.descriptor(s.digest()), nil
		}
		// An upload that the registry does not know any more is begun anew; not
		// for ever, as what is sent in between counts as progress.
		if transfer.Is[lostUpload](err) && s.begun <= s.retry.Most {
			err = transfer.Passing(err)
		}
		if err := s.retry.Wait(ctx, "send the layer", err); err != nil {
			return descriptor{}, err
		}
		if err := errors.Join(s.locate(ctx), s.recount()); err != nil {
			return descriptor{}, err
		}
	}
}

// lostUpload is the error for an upload that can't be gone on with.
type lostUpload struct{ error }

func (l lostUpload) Unwrap() error { return l.error }

// isLost says whether the answer about an upload means that the registry doesn't
// know it any more, or holds something else than was sent.
func isLost(err error) bool {
	return web.HasStatus(err, http.StatusNotFound, http.StatusBadRequest, http.StatusRequestedRangeNotSatisfiable, http.StatusConflict, http.StatusGone)
}

func (s *layerSender) descriptor(digest string) descriptor {
	return descriptor{MediaType: typeLayer, Digest: digest, Size: s.layer.size}
}

func (s *layerSender) digest() string { return digestOf([sha256.Size]byte(s.sum.Sum(nil))) }

// resume finds what an earlier run has sent; done: all of it.
func (s *layerSender) resume(ctx context.Context, state uploadState) (done bool, err error) {
	if state.Size == 0 {
		return false, nil
	}
	if state.Size != s.layer.size {
		s.log.Say("what an earlier run has sent was another file; beginning anew")
		return false, nil
	}
	if state.Digest != "" {
		err := s.retry.Do(ctx, "look for the layer", func() (err error) {
			done, err = s.hasBlob(ctx, s.descriptor(state.Digest))
			return err
		})
		if !done && err == nil {
			s.log.Say("what an earlier run has sent is not there any more; beginning anew")
		}
		if done {
			s.counted, err = s.layer.data(s.layer.size)
			s.log.Kept(s.counted)
		}
		return done, err
	}
	if s.at, err = url.Parse(state.Upload); err == nil {
		s.at, err = s.checkLocation(s.at)
	}
	sum := sha256.New()
	if err == nil {
		err = sum.(interface{ UnmarshalBinary([]byte) error }).UnmarshalBinary(state.Hash)
	}
	if err != nil || state.Offset < 0 || state.Offset > s.layer.size {
		s.at = nil
		s.log.Say("what an earlier run has noted can't be used; beginning anew")
		return false, nil
	}
	s.sum, s.summed = sum, state.Offset
	if err := s.locate(ctx); err != nil || s.at == nil {
		return false, err
	}
	s.counted, err = s.layer.data(s.off)
	s.log.Kept(s.counted)
	return false, err
}

// locate asks how much has arrived. Where the registry does not say it, there is
// no upload afterwards.
func (s *layerSender) locate(ctx context.Context) error {
	var off int64
	if s.at != nil {
		err := s.retry.Do(ctx, "ask how much has arrived", func() error {
			n, at, err := s.blobStatus(ctx, s.at)
			if err == nil {
				off, s.at = n, at
			}
			return err
		})
		if err != nil && !isLost(err) {
			return err
		}
		if err != nil || off > s.layer.size {
			s.log.Say("the registry has given up what was sent so far; beginning anew")
			// It may also keep it for some days, which only wastes space there.
			_ = s.cancelBlob(ctx, s.at)
			s.at, off = nil, 0
		}
	}
	return s.reposition(off)
}

// reposition goes to where the registry is; the digest follows.
func (s *layerSender) reposition(off int64) error {
	s.off = off
	if off < s.summed {
		s.sum, s.summed = sha256.New(), 0
	}
	if off > s.summed {
		if _, err := io.Copy(s.sum, bufio.NewReaderSize(s.layer.reader(s.summed, off, nil), web.BodyBuffer)); err != nil {
			return err
		}
		s.summed = off
	}
	return nil
}

// recount tells log how much has arrived after something went wrong.
func (s *layerSender) recount() error {
	data, err := s.layer.data(s.off)
	if err == nil && data != s.counted {
		s.log.Sent(data - s.counted)
		s.counted = data
	}
	return err
}

// tryChunks sends what is missing and finishes the blob.
func (s *layerSender) tryChunks(ctx context.Context) error {
	if s.at == nil {
		at, smallest, err := s.beginBlob(ctx)
		if err != nil {
			return err
		}
		s.at, s.chunk = at, max(s.chunk, smallest)
		s.begun++
		s.keep()
	}
	for s.off < s.layer.size {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := s.sendChunk(ctx); err != nil {
			if s.off == 0 && refusesChunks(err) {
				return fmt.Errorf("%w: %w", errNoChunks, err)
			}
			if isLost(err) {
				return lostUpload{err}
			}
			return err
		}
		s.retry.Progress()
		s.keep()
	}
	err := s.finish(ctx, s.at, nil)
	if err != nil && isLost(err) {
		// Above all a wrong digest, which is not asked about again.
		_ = s.cancelBlob(ctx, s.at) // forgotten by the registry after some days
		s.at = nil
		return lostUpload{err}
	}
	return err
}

// refusesChunks says whether the answer to the first chunk means that the
// registry takes none.
func refusesChunks(err error) bool {
	return web.HasStatus(err, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusLengthRequired,
		http.StatusRequestedRangeNotSatisfiable, http.StatusNotImplemented)
}

// keep notes how far the upload has come.
func (s *layerSender) keep() {
	state, err := s.sum.(interface{ MarshalBinary() ([]byte, error) }).MarshalBinary()
	if err == nil {
		s.log.Keep(uploadState{Size: s.layer.size, Upload: s.at.String(), Offset: s.off, Hash: state})
	}
}

// sendChunk sends the next chunk. A registry that answers has it all, or says
// what it has.
func (s *layerSender) sendChunk(ctx context.Context) error {
	end := min(s.off+s.chunk, s.layer.size)
	body := &layerBody{s: s, off: s.off, end: end, base: s.counted}
	// The request outlives an interrupt for a moment.
	graced, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(s.grace, cancel) })
	defer stop()
	resp, err := s.do(graced, request{
		method: http.MethodPatch, url: s.at, size: end - s.off,
		header: map[string]string{
			"Content-Type":  "application/octet-stream",
			"Content-Range": fmt.Sprintf("%d-%d", s.off, end-1), // without unit: specification, "Pushing a blob in chunks"
		},
		body: body.open, want: []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated},
	})
	read := body.close()
	if err != nil {
		return err
	}
	web.Drain(resp)
	at, err := s.location(resp)
	if err != nil {
		return err
	}
	s.at = at
	if arrived, ok := arrivedBytes(resp); ok && arrived != end {
		if arrived <= s.off || arrived > s.layer.size {
			return transfer.Passing(fmt.Errorf("the registry has %d bytes, must be %d", arrived, end))
		}
		return errors.Join(s.reposition(arrived), s.recount())
	}
	if read != end-s.off {
		return transfer.Passing(errors.New("the registry answered before it had all"))
	}
	s.sum, s.summed, s.off = body.sum, end, end
	return nil
}

// finish ends the upload at a URL. A lost answer does no harm: what counts is
// that the registry has the blob.
func (s *layerSender) finish(ctx context.Context, at *url.URL, body *layerBody) error {
	d := s.descriptor(s.digest())
	var open func() io.ReadCloser
	size := int64(0)
	if body != nil {
		open, size = body.open, s.layer.size
	}
	err := s.finishBlob(ctx, at, d, open, size)
	if body != nil {
		body.close()
	}
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		limit := time.Duration(0)
		if web.HasStatus(err, http.StatusGatewayTimeout) {
			limit = web.SizeLimit(d.Size)
		}
		if has, _ := transfer.Await(ctx, limit, func() (bool, error) { return s.hasBlob(ctx, d) }); !has {
			return err
		}
	}
	s.at = nil
	s.log.Keep(uploadState{Size: s.layer.size, Digest: d.Digest})
	return nil
}

// sendWhole sends the layer in one request. Its digest has to be known before,
// so that the source is read twice.
func (s *layerSender) sendWhole(ctx context.Context) (descriptor, error) {
	s.log.Say("the registry takes the layer in one piece only: it is read twice, and can't be gone on with")
	if s.at != nil {
		_ = s.cancelBlob(ctx, s.at) // forgotten by the registry after some days
		s.at = nil
	}
	if err := s.reposition(s.layer.size); err != nil {
		return descriptor{}, err
	}
	d := s.descriptor(s.digest())
	err := s.retry.Do(ctx, "send the layer", func() error {
		if has, err := s.hasBlob(ctx, d); has || err != nil {
			return err
		}
		at, _, err := s.beginBlob(ctx)
		if err != nil {
			return err
		}
		s.at, s.off = at, 0
		if err := s.recount(); err != nil {
			return err
		}
		return s.finish(ctx, at, &layerBody{s: s, end: s.layer.size, summed: true})
	})
	return d, err
}
