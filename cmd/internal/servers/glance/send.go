package glance

import (
	"bufio"
	"context"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/google/uuid"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

const (
	// importLimit is how long an import may take at least, which waits for its
	// turn and may convert the file.
	importLimit = 2 * time.Hour
	// firstPoll is the time between two looks, which doubles up to longPoll.
	firstPoll = 50 * time.Millisecond
	longPoll  = 2 * time.Second
)

// Send implements [servers.Upload].
func (u *upload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	u.retry.Say, u.say = log.Say, log.Say
	if u.published {
		return u.keep(ctx, src, log)
	}
	if u.id != "" {
		log.Say("Glance can't go on with what an earlier run has sent; beginning anew")
	}
	s := &sender{u, src, log, 0}
	err := u.retry.Do(ctx, "send the image", func() error { return s.try(ctx) })
	return u.failed(ctx, "send the image", err)
}

// keep computes the checksum of what an earlier run has published, in place of
// sending it.
func (u *upload) keep(ctx context.Context, src servers.Source, log servers.Log) error {
	data, err := transfer.DataSize(src)
	if err != nil {
		return err
	}
	log.Kept(data)
	log.Keep(uploadState{u.id})
	sum := sha512.New()
	whole := &web.PieceReader{Src: src, Piece: web.Piece{Start: 0, End: src.Size()}}
	if _, err := io.Copy(sum, transfer.ContextReader{Ctx: ctx, Reader: bufio.NewReaderSize(whole, web.BodyBuffer)}); err != nil {
		return err
	}
	u.sha512 = sum.Sum(nil)
	return nil
}

// sender brings a file to an image.
type sender struct {
	*upload
	src     servers.Source
	log     servers.Log
	counted int64 // bytes of data that log knows of
}

// try makes an image and sends the file to it, in place of what an earlier try
// has left.
func (s *sender) try(ctx context.Context) error {
	if s.id != "" {
		if err := s.remove(ctx, s.id); err != nil {
			return err
		}
	}
	// Keystone's tokens may end within the time that an upload takes.
	if err := s.token.refresh(ctx); err != nil {
		return err
	}
	s.id = uuid.NewString()
	s.log.Keep(uploadState{s.id})
	if err := s.create(ctx, s.id, transfer.HiddenName(s.name), s.file.Format); err != nil {
		return err
	}
	what, limit := "file", web.SizeLimit(s.src.Size())
	if s.byImport {
		what, limit = "stage", importLimit+limit
	}
	whole, err := s.put(ctx, what)
	if err != nil && !whole {
		return err
	}
	if err == nil && s.byImport {
		message := map[string]map[string]string{"method": {"name": "glance-direct"}}
		err = s.ask(ctx, request{method: http.MethodPost, path: imagePath(s.id, "import"), want: []int{http.StatusAccepted}}, message, nil)
	}
	if err != nil && !transfer.MayPass(err) {
		return err
	}
	// The answer may be lost of what went well.
	image, settled := s.settle(ctx, limit, err != nil)
	if settled != nil {
		return errors.Join(err, settled)
	}
	s.image = image
	return s.checkImage()
}

// put sends the file in one request; whole says whether all of it has left.
func (s *sender) put(ctx context.Context, what string) (whole bool, err error) {
	var body *web.CountingBody
	var sum hash.Hash
	open := func() io.ReadCloser {
		if body != nil {
			body.End()
		}
		s.log.Sent(-s.counted)
		s.counted = 0
		sum = sha512.New()
		r := &web.TellingReader{PieceReader: web.PieceReader{Src: s.src, Piece: web.Piece{Start: 0, End: s.src.Size()}}, Sent: func(n int64) {
			s.counted += n
			s.log.Sent(n)
		}}
		body = &web.CountingBody{R: io.TeeReader(bufio.NewReaderSize(r, web.BodyBuffer), sum)}
		return body
	}
	resp, err := s.do(ctx, request{
		method: http.MethodPut, path: imagePath(s.id, what), header: map[string]string{"Content-Type": "application/octet-stream"},
		body: open, size: s.src.Size(), want: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted},
	})
	whole = body.End() == s.src.Size()
	if err == nil {
		web.Drain(resp)
	}
	if whole {
		s.sha512 = sum.Sum(nil)
	} else if err == nil {
		err = transfer.Passing(errors.New("the service answered before it had all"))
	}
	return whole, err
}

// settle waits until Glance has put the file away, and returns the image. With
// doubt, what it was asked to do may not have arrived at all.
func (s *sender) settle(ctx context.Context, limit time.Duration, doubt bool) (imageInfo, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, transfer.Lasting(fmt.Errorf("the image is not ready after %v", limit)))
	defer cancel()
	for pause := firstPoll; ; pause = min(2*pause, longPoll) {
		var image imageInfo
		err := s.retry.Do(ctx, "look at the image", func() (err error) {
			image, err = s.apiClient.image(ctx, s.id)
			return err
		})
		if err != nil {
			return imageInfo{}, err
		}
		imported := true
		if s.byImport {
			if imported, err = s.imported(ctx, image); err != nil {
				return imageInfo{}, err
			}
		}
		switch {
		case image.Status == "active" && imported:
			return image, nil
		case image.Status == "queued" && (doubt || !s.byImport), image.Status == "uploading" && doubt:
			return imageInfo{}, transfer.Passing(fmt.Errorf("the service has given up the image: it is %s", image.Status))
		case !slices.Contains([]string{"active", "queued", "saving", "uploading", "importing"}, image.Status):
			return imageInfo{}, transfer.Lasting(fmt.Errorf("the image is %s", image.Status))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return imageInfo{}, context.Cause(ctx)
		}
	}
}

// imported says whether an import has ended; its failure is an error. An image
// is active before that, but Glance may still write down what it knew of it
// before: a new name would be lost.
func (s *sender) imported(ctx context.Context, image imageInfo) (bool, error) {
	var answer struct {
		Tasks []struct{ Status, Message string }
	}
	err := s.retry.Do(ctx, "look at the import", func() error {
		return s.ask(ctx, request{method: http.MethodGet, path: imagePath(image.ID, "tasks"), want: []int{http.StatusOK}}, nil, &answer)
	})
	if err != nil && !web.HasStatus(err, http.StatusNotFound) { // before API 2.12
		return false, err
	}
	if image.FailedImport != "" {
		return false, transfer.Lasting(fmt.Errorf("the import to %s failed", web.OneLine("", image.FailedImport)))
	}
	ended := true
	for _, task := range answer.Tasks {
		if task.Status == "failure" {
			return false, transfer.Lasting(fmt.Errorf("the import failed: %s", web.OneLine("", task.Message)))
		}
		ended = ended && task.Status == "success"
	}
	return ended, nil
}

// checkImage compares what Glance has found in the file with what was sent. It
// reads the headers of a format while the file comes; nothing to tell of the
// disk means that it has not recognised them, and would not boot it.
func (s *sender) checkImage() error {
	i := s.image
	switch {
	case i.DiskFormat != s.file.Format && s.byImport:
		return nil // the service converts what it imports
	case i.Size == nil || *i.Size != s.src.Size():
		return transfer.Lasting(fmt.Errorf("the service has an image of another size than the %d bytes that were sent", s.src.Size()))
	case s.file.Format == "raw":
		return nil
	case i.VirtualSize == nil || *i.VirtualSize == 0 && s.file.VirtualSize != 0:
		return &cli.Error{
			Err:  fmt.Errorf("the image is not recognised by Glance as %s", s.file.Format),
			Hint: "--format qcow2 or raw is what every cloud takes", Code: cli.ExitServer,
		}
	case s.file.VirtualSize != 0 && *i.VirtualSize != s.file.VirtualSize:
		return transfer.Lasting(fmt.Errorf("the disk is for Glance one of %d bytes, it has %d", *i.VirtualSize, s.file.VirtualSize))
	}
	return nil
}
