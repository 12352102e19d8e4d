// Package glance sends images to OpenStack's image service (Image API v2), and
// fetches them.
package glance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/google/uuid"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// upload is an upload of an image to OpenStack's image service.
//
// The image is made under a hidden name, and gets its own when it is whole.
// Glance can't go on with an upload: each run begins anew.
type upload struct {
	*apiClient
	name     string // of the image
	byImport bool
	ext      string // of the file that is sent, with its dot
	force    bool
	retry    *transfer.Retrier
	say      func(format string, args ...any) // nil before Send
	file     servers.File

	id     string // of the image; empty: there is none
	sha512 []byte // of what was sent
	image  imageInfo
	// published: the image has its name, it may be from an earlier run.
	published bool
}

var _ = (servers.Checker)((*upload)(nil))
var _ = (servers.Verifier)((*upload)(nil))
var _ = (servers.ReadBacker)((*upload)(nil))
var _ = (servers.Namer)((*upload)(nil))

// uploadState is what the next run needs: to remove what is left over.
type uploadState struct {
	ID string `json:"id"`
}

// Open opens the image that a URL names as a destination.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	name, byImport, err := parseURL(dest, o.Name)
	if err != nil {
		return nil, err
	}
	u := &upload{name: name, byImport: byImport, ext: path.Ext(o.Name), force: o.Force, retry: transfer.NewRetrier(o)}
	if u.apiClient, err = newClient(ctx, o); err != nil {
		return nil, transfer.ServerError(u.String(), "open the image service", err)
	}
	if err := u.open(ctx, o.Resume); err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

// open looks for what an earlier run has left and for the name.
func (u *upload) open(ctx context.Context, resume json.RawMessage) error {
	if resume != nil {
		var state uploadState
		if err := json.Unmarshal(resume, &state); err != nil {
			return fmt.Errorf("%s: what an earlier run has kept: %w", u, err)
		}
		if uuid.Validate(state.ID) == nil {
			var old imageInfo
			err := u.retry.Meet(ctx, "look for what an earlier run has left", func() (err error) {
				old, err = u.apiClient.image(ctx, state.ID)
				return err
			})
			if err != nil && !web.HasStatus(err, http.StatusNotFound) {
				return transfer.ServerError(u.String(), "look for what an earlier run has left", err)
			}
			// One that has its name was published just before that run ended.
			if err == nil {
				u.id, u.image, u.published = old.ID, old, old.Name == u.name && old.Status == "active"
			}
		}
	}
	var taken []imageInfo
	err := u.retry.Meet(ctx, "look for the name", func() (err error) {
		taken, err = u.named(ctx, u.name, u.id)
		return err
	})
	if err != nil {
		return u.failed(ctx, "look for the name", err)
	}
	if len(taken) > 0 && !u.force {
		return transfer.Exists(u.String())
	}
	return nil
}

func (u *upload) String() string { return urlOf(u.name, u.byImport) }

// FileName implements [servers.Namer].
func (u *upload) FileName() string {
	if path.Ext(u.name) == u.ext {
		return u.name
	}
	return u.name + u.ext
}

// Check implements [servers.Checker]: the service takes the format, and will
// recognise it (Glance's format inspector).
func (u *upload) Check(ctx context.Context, f servers.File) error {
	u.file = f
	hint := "--format qcow2 or raw is what every cloud takes"
	switch {
	case f.Format == "vmdk" && f.Subformat == "monolithicFlat":
		return transfer.Usage(fmt.Errorf("%s: Glance takes no vmdk of two files", u), "-o subformat=streamOptimized or monolithicSparse")
	case f.Format == "vhd" && f.Subformat == "fixed":
		return transfer.Usage(fmt.Errorf("%s: Glance does not recognise a fixed vhd", u), "-o subformat=dynamic")
	case !slices.Contains([]string{"raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx"}, f.Format):
		return transfer.Usage(fmt.Errorf("%s: Glance has no name for the format %s", u, f.Format), "%s", hint)
	}
	formats, err := u.formats(ctx)
	if err != nil {
		return transfer.ServerError(u.String(), "ask for its formats", err)
	}
	if len(formats) > 0 && !slices.Contains(formats, f.Format) {
		return transfer.Usage(fmt.Errorf("%s: this image service does not take %s", u, f.Format), "it takes: %s", strings.Join(formats, ", "))
	}
	if !u.byImport {
		return nil
	}
	methods, err := u.importMethods(ctx)
	if err == nil && !slices.Contains(methods, "glance-direct") {
		return transfer.Usage(fmt.Errorf("%s: this image service does not import by glance-direct", u), "glance:// sends straight")
	}
	return transfer.ServerError(u.String(), "ask how it imports", err)
}

// failed is [transfer.ServerError], but for an interrupt.
func (u *upload) failed(ctx context.Context, what string, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return transfer.ServerError(u.String(), what, err)
}

// Verify implements [servers.Verifier] with the checksum that Glance has computed
// as the file came.
func (u *upload) Verify(ctx context.Context, sum []byte) (string, error) {
	if u.image.DiskFormat != u.file.Format {
		return "", transfer.NoVerification(u.String(), "the service has converted the image to "+u.image.DiskFormat)
	}
	c, err := u.image.checksum()
	if err != nil {
		return "", err
	}
	want := map[string][]byte{"sha512": u.sha512, "sha256": sum}[c.Algorithm]
	if want == nil {
		return "", transfer.NoVerification(u.String(), "the service has only "+c.Algorithm)
	}
	if !bytes.Equal(c.Sum, want) {
		return "", transfer.Differs(u.String(), c.Sum, c.By, want)
	}
	return c.By, nil
}

// ReadBack implements [servers.ReadBacker].
func (u *upload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	err := u.retry.ReadAll(ctx, "read it back", w, off, length, func(w io.Writer, off, length int64) error {
		return u.readFile(ctx, w, u.id, off, length)
	})
	return u.failed(ctx, "read it back", err)
}

// readFile writes bytes of an image's file to w.
func (c *apiClient) readFile(ctx context.Context, w io.Writer, id string, off, length int64) error {
	if length == 0 {
		return nil
	}
	r := request{
		method: http.MethodGet, path: imagePath(id, "file"), want: []int{http.StatusOK, http.StatusPartialContent},
		header: map[string]string{"Range": fmt.Sprintf("bytes=%d-%d", off, off+length-1)},
	}
	resp, err := web.WithIdleBody(ctx, func(ctx context.Context) (*http.Response, error) { return c.do(ctx, r) })
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := web.SkipTo(resp, off); err != nil {
		return err
	}
	return transfer.CopyExactly(transfer.ContextWriter{Ctx: ctx, Writer: w}, resp.Body, length)
}

// Close implements [servers.Upload]. An image that was not published is of no use
// to the next run either.
func (u *upload) Close(bool) error {
	defer u.close()
	if u.id == "" || u.published {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), web.CloseLimit)
	defer cancel()
	if err := u.remove(ctx, u.id); err != nil {
		return fmt.Errorf("%s: image %s is left over: %w", u, u.id, err)
	}
	return nil
}
