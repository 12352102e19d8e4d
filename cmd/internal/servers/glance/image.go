package glance

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/web"
)

// imageInfo is what Glance tells of an image (Image API v2, "Show image").
type imageInfo struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Status     string `json:"status"`
	DiskFormat string `json:"disk_format"`
	Owner      string `json:"owner"` // the project
	Protected  bool   `json:"protected"`
	UpdatedAt  string `json:"updated_at"` // 2006-01-02T15:04:05Z
	// Size of the file, and VirtualSize of the disk in it, in bytes; nil: not
	// known.
	Size        *int64 `json:"size"`
	VirtualSize *int64 `json:"virtual_size"`
	// HashValue is the file's by HashAlgo, Checksum its MD5, in hexadecimal.
	HashAlgo  string `json:"os_hash_algo"`
	HashValue string `json:"os_hash_value"`
	Checksum  string `json:"checksum"`
	// FailedImport lists the stores that an import could not reach.
	FailedImport string `json:"os_glance_failed_import"`
}

// maxListed bounds how many images of one name are looked at.
const maxListed = 1000

// checksum returns what Glance has computed while the file came.
func (i imageInfo) checksum() (servers.Checksum, error) {
	algorithm, text := i.HashAlgo, i.HashValue
	if algorithm != "sha256" && algorithm != "sha512" {
		algorithm, text = "md5", i.Checksum
	}
	sum, err := hex.DecodeString(text)
	if err != nil || len(sum) == 0 {
		return servers.Checksum{}, fmt.Errorf("image %s: the service tells no checksum: %w", i.ID, errors.ErrUnsupported)
	}
	return servers.Checksum{Algorithm: algorithm, Sum: sum, By: algorithm + ", by Glance"}, nil
}

// imagePath returns the path of something of an image; "" is itself.
func imagePath(id, what string) string {
	if what != "" {
		what = "/" + what
	}
	return "images/" + id + what
}

func (c *apiClient) image(ctx context.Context, id string) (i imageInfo, err error) {
	err = c.ask(ctx, request{method: http.MethodGet, path: imagePath(id, ""), want: []int{http.StatusOK}}, nil, &i)
	return i, err
}

// named returns the images of a name, but for one.
func (c *apiClient) named(ctx context.Context, name, but string) ([]imageInfo, error) {
	var found []imageInfo
	// "in:" and the like would be operators; quotes make it a value.
	query := url.Values{"name": {name}, "limit": {"100"}}
	if strings.Contains(name, ":") {
		query.Set("name", `in:"`+name+`"`)
	}
	for query != nil {
		var page struct {
			Images []imageInfo
			Next   string
		}
		if err := c.ask(ctx, request{method: http.MethodGet, path: "images", query: query, want: []int{http.StatusOK}}, nil, &page); err != nil {
			return nil, err
		}
		for _, i := range page.Images {
			if i.Name == name && i.ID != but {
				found = append(found, i)
			}
		}
		next, err := url.Parse(page.Next)
		if err != nil || page.Next == "" || len(page.Images) == 0 || len(found) > maxListed {
			break
		}
		query = next.Query()
	}
	return found, nil
}

// create makes an image without a file.
func (c *apiClient) create(ctx context.Context, id, name, diskFormat string) error {
	message := map[string]string{
		"id": id, "name": name, "disk_format": diskFormat, "container_format": "bare", "visibility": "private",
	}
	return c.ask(ctx, request{method: http.MethodPost, path: "images", want: []int{http.StatusCreated}}, message, nil)
}

// rename gives an image another name, at once (RFC 6902 as Glance has it).
func (c *apiClient) rename(ctx context.Context, id, name string) (i imageInfo, err error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value"`
	}
	err = c.ask(ctx, request{
		method: http.MethodPatch, path: imagePath(id, ""),
		header: map[string]string{"Content-Type": "application/openstack-images-v2.1-json-patch"}, want: []int{http.StatusOK},
	}, []operation{{"replace", "/name", name}}, &i)
	return i, err
}

// remove deletes an image, which may be gone already.
func (c *apiClient) remove(ctx context.Context, id string) error {
	err := c.ask(ctx, request{method: http.MethodDelete, path: imagePath(id, ""), want: []int{http.StatusNoContent, http.StatusOK}}, nil, nil)
	if web.HasStatus(err, http.StatusNotFound, http.StatusGone) {
		return nil
	}
	return err
}

// formats returns the disk formats that the service takes; none: it does not
// tell.
func (c *apiClient) formats(ctx context.Context) ([]string, error) {
	var schema struct {
		Properties struct {
			DiskFormat struct {
				Enum []*string // one is null
			} `json:"disk_format"`
		}
	}
	err := c.ask(ctx, request{method: http.MethodGet, path: "schemas/image", want: []int{http.StatusOK}}, nil, &schema)
	if web.HasStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	var formats []string
	for _, f := range schema.Properties.DiskFormat.Enum {
		if f != nil {
			formats = append(formats, *f)
		}
	}
	return formats, err
}

// importMethods returns by what ways the service takes files but by a PUT.
func (c *apiClient) importMethods(ctx context.Context) ([]string, error) {
	var info struct {
		Methods struct{ Value []string } `json:"import-methods"`
	}
	err := c.ask(ctx, request{method: http.MethodGet, path: "info/import", want: []int{http.StatusOK}}, nil, &info)
	if web.HasStatus(err, http.StatusNotFound) {
		return nil, nil
	}
	return info.Methods.Value, err
}
