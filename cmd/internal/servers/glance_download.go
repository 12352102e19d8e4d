package servers

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"flatimg/cmd/internal/cli"
)

// glanceLanes is how many requests at a time are of use.
const glanceLanes = 4

// glanceDownload is an image at OpenStack's image service. Its file never
// changes.
type glanceDownload struct {
	*glanceClient
	image glanceImage
	// ranges says whether the service sends parts of a file.
	ranges bool
}

var _ = (Summer)((*glanceDownload)(nil))
var _ = (Namer)((*glanceDownload)(nil))

func openGlanceSource(ctx context.Context, src string, o Options) (Download, error) {
	name, byImport, err := parseGlance(src, "")
	if err != nil {
		return nil, err
	}
	where := glanceURL(name, byImport)
	client, err := newGlanceClient(ctx, o)
	if err != nil {
		return nil, serverError(where, "open the image service", err)
	}
	d := &glanceDownload{glanceClient: client}
	if err := newRetrier(o).meet(ctx, "look for the image", func() error { return d.find(ctx, name) }); err != nil {
		client.close()
		return nil, serverError(where, "look for the image", err)
	}
	return d, nil
}

// find finds the image by its id or name.
func (d *glanceDownload) find(ctx context.Context, name string) error {
	found, err := d.candidates(ctx, name)
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return lasting{fmt.Errorf("no image of that name or id")}
	case len(found) > 1:
		var ids []string
		for _, i := range found {
			ids = append(ids, i.ID)
		}
		return usage(fmt.Errorf("%d images have that name", len(found)), "name one by its id: %s", strings.Join(ids, ", "))
	}
	d.image = found[0]
	if d.image.Status != "active" || d.image.Size == nil || *d.image.Size < 0 {
		return &cli.Error{Err: fmt.Errorf("image %s has no file: it is %s", d.image.ID, d.image.Status), Code: cli.ExitServer}
	}
	return d.probe(ctx)
}

func (d *glanceDownload) candidates(ctx context.Context, name string) ([]glanceImage, error) {
	if uuid.Validate(name) == nil {
		image, err := d.glanceClient.image(ctx, name)
		if err == nil {
			return []glanceImage{image}, nil
		}
		if !hasStatus(err, http.StatusNotFound) {
			return nil, err
		}
	}
	return d.named(ctx, name, "")
}

// probe finds out whether the service sends parts of the file: some stores
// can't.
func (d *glanceDownload) probe(ctx context.Context) error {
	if d.Size() == 0 {
		return nil
	}
	resp, err := withIdleBody(ctx, func(ctx context.Context) (*http.Response, error) {
		return d.do(ctx, glanceRequest{
			method: http.MethodGet, path: imagePath(d.image.ID, "file"), header: map[string]string{"Range": "bytes=0-0"},
			want: []int{http.StatusOK, http.StatusPartialContent},
		})
	})
	if err != nil {
		return err
	}
	d.ranges = resp.StatusCode == http.StatusPartialContent
	return resp.Body.Close()
}

func (d *glanceDownload) String() string { return glanceURL(d.image.Name, false) }

// FileName implements [Namer].
func (d *glanceDownload) FileName() string { return d.image.Name + "." + d.image.DiskFormat }

// Size implements [Download].
func (d *glanceDownload) Size() int64 { return *d.image.Size }

// Version implements [Download].
func (d *glanceDownload) Version() string {
	return strings.Join([]string{d.image.ID, d.image.HashValue, d.image.Checksum}, ":")
}

// Lanes implements [Download].
func (d *glanceDownload) Lanes() int {
	if d.ranges {
		return glanceLanes
	}
	return 1
}

// Checksum implements [Summer].
func (d *glanceDownload) Checksum(context.Context) (Checksum, error) { return d.image.checksum() }

// Read implements [Download].
func (d *glanceDownload) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = d.Size() - off
	}
	err := d.readFile(ctx, w, d.image.ID, off, length)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return serverError(d.String(), "read", err)
}

// Close implements [Download].
func (d *glanceDownload) Close() error {
	d.close()
	return nil
}
