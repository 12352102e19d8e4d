package glance

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"flatimg/cmd/internal/servers/transfer"
)

// parseURL parses glance://NAME and glance+import://NAME, percent signs as in
// all URLs. The service is that of the OpenStack account. Without NAME, it is
// name without what follows its last dot.
func parseURL(text, name string) (image string, byImport bool, err error) {
	scheme, rest, _ := strings.Cut(text, "://")
	image, err = url.PathUnescape(strings.TrimSuffix(rest, "/"))
	if image == "" {
		image = strings.TrimSuffix(name, path.Ext(name))
	}
	const most = 255 // bytes: Image API v2, schema of an image
	switch {
	case err != nil:
	case image == "":
		err = errors.New("no name")
	case strings.ContainsAny(image, "/\x00"):
		err = errors.New("a name with a slash; the service's address comes from the OS_* variables or clouds.yaml")
	case len(image) > most:
		err = fmt.Errorf("the name is longer than %d bytes", most)
	}
	if err != nil {
		return "", false, transfer.Usage(fmt.Errorf("%s: %w", text, err), "write glance://NAME")
	}
	return image, strings.EqualFold(scheme, "glance+import"), nil
}

func urlOf(image string, byImport bool) string {
	if byImport {
		return "glance+import://" + image
	}
	return "glance://" + image
}
