package glance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// download is an image at OpenStack's image service. Its file never changes.
type download struct {
	*apiClient
	image imageInfo
	// ranges says whether the service sends parts of a file.
	ranges bool
}

var _ = (servers.Summer)((*download)(nil))
var _ = (servers.Namer)((*download)(nil))

// OpenSource opens the image that a URL names for fetching.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	name, byImport, err := parseURL(src, "")
	if err != nil {
		return nil, err
	}
	where := urlOf(name, byImport)
	client, err := newClient(ctx, o)
	if err != nil {
		return nil, transfer.ServerError(where, "open the image service", err)
	}
	d := &download{apiClient: client}
	if err := transfer.NewRetrier(o).Meet(ctx, "look for the image", func() error { return d.find(ctx, name) }); err != nil {
		client.close()
		return nil, transfer.ServerError(where, "look for the image", err)
	}
	return d, nil
}

// find finds the image by its id or name.
func (d *download) find(ctx context.Context, name string) error {
	found, err := d.candidates(ctx, name)
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return transfer.Lasting(fmt.Errorf("no image of that name or id"))
	case len(found) > 1:
		var ids []string
		for _, i := range found {
			ids = append(ids, i.ID)
		}
		return transfer.Usage(fmt.Errorf("%d images have that name", len(found)), "name one by its id: %s", strings.Join(ids, ", "))
	}
	d.image = found[0]
	if d.image.Status != "active" || d.image.Size == nil || *d.image.Size < 0 {
		return &cli.Error{Err: fmt.Errorf("image %s has no file: it is %s", d.image.ID, d.image.Status), Code: cli.ExitServer}
	}
	return d.probe(ctx)
}

func (d *download) candidates(ctx context.Context, name string) ([]imageInfo, error) {
	if uuid.Validate(name) == nil {
		image, err := d.apiClient.image(ctx, name)
		if err == nil {
			return []imageInfo{image}, nil
		}
		if !web.HasStatus(err, http.StatusNotFound) {
			return nil, err
		}
	}
	return d.named(ctx, name, "")
}

// probe finds out whether the service sends parts of the file: some stores
// can't.
func (d *download) probe(ctx context.Context) error {
	if d.Size() == 0 {
		return nil
	}
	resp, err := web.WithIdleBody(ctx, func(ctx context.Context) (*http.Response, error) {
		return d.do(ctx, request{
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

func (d *download) String() string { return urlOf(d.image.Name, false) }

// FileName implements [servers.Namer].
func (d *download) FileName() string { return d.image.Name + "." + d.image.DiskFormat }

// Size implements [servers.Download].
func (d *download) Size() int64 { return *d.image.Size }

// Version implements [servers.Download].
func (d *download) Version() string {
	return strings.Join([]string{d.image.ID, d.image.HashValue, d.image.Checksum}, ":")
}

// Lanes implements [servers.Download].
func (d *download) Lanes() int {
	if d.ranges {
		return web.DefaultLanes
	}
	return 1
}

// Checksum implements [servers.Summer].
func (d *download) Checksum(context.Context) (servers.Checksum, error) { return d.image.checksum() }

// Read implements [servers.Download].
func (d *download) Read(ctx context.Context, w io.Writer, off, length int64) error {
	if length < 0 {
		length = d.Size() - off
	}
	err := d.readFile(ctx, w, d.image.ID, off, length)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return transfer.ServerError(d.String(), "read", err)
}

// Close implements [servers.Download].
func (d *download) Close() error {
	d.close()
	return nil
}
