// Package schemes knows which protocol a path or a URL names, and opens it.
package schemes

import (
	"context"
	"fmt"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/glance"
	"flatimg/cmd/internal/servers/imageio"
	"flatimg/cmd/internal/servers/local"
	"flatimg/cmd/internal/servers/nbd"
	"flatimg/cmd/internal/servers/oci"
	"flatimg/cmd/internal/servers/rsync"
	"flatimg/cmd/internal/servers/s3"
	"flatimg/cmd/internal/servers/sftp"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/webdav"
)

// Open opens the destination dest, a path or a URL. It fails when the server
// can't be reached, when the folder is missing, and when the target exists.
func Open(ctx context.Context, dest string, o servers.Options) (servers.Upload, error) {
	name, ok := transfer.SchemeOf(dest)
	if !ok {
		return local.Open(ctx, dest, o)
	}
	for _, s := range schemes() {
		if s.name == name {
			return s.open(ctx, dest, o)
		}
	}
	return nil, unknownScheme("DEST", dest, name)
}

// OpenSource opens the file src, a path or a URL, for fetching. It fails when
// the server can't be reached and when there is no such file.
func OpenSource(ctx context.Context, src string, o servers.Options) (servers.Download, error) {
	name, ok := transfer.SchemeOf(src)
	if !ok {
		return nil, fmt.Errorf("%s: not a URL", src)
	}
	for _, s := range schemes() {
		if s.name == name && s.source != nil {
			return s.source(ctx, src, o)
		}
	}
	return nil, unknownScheme("SRC", src, name)
}

// scheme opens destinations and sources of one kind.
type scheme struct {
	name string
	open func(ctx context.Context, dest string, o servers.Options) (servers.Upload, error)
	// source is nil where nothing can be fetched.
	source func(ctx context.Context, src string, o servers.Options) (servers.Download, error)
	// format of the target where DEST names none by an extension; empty: any.
	format string
	// disk: DEST is a disk, whose name says nothing of a format.
	disk bool
}

// schemes returns all, in the order in which they are told.
func schemes() []scheme {
	return []scheme{
		{name: "file", open: local.OpenURL},
		{name: "sftp", open: sftp.Open, source: sftp.OpenSource},
		{name: "rsync", open: rsync.Open, source: rsync.OpenSource},
		{name: rsync.OverSSH, open: rsync.Open, source: rsync.OpenSource},
		{name: "http", open: webdav.Open, source: webdav.OpenSource},
		{name: "https", open: webdav.Open, source: webdav.OpenSource},
		{name: "dav", open: webdav.Open, source: webdav.OpenSource},
		{name: "davs", open: webdav.Open, source: webdav.OpenSource},
		{name: "s3", open: s3.Open, source: s3.OpenSource},
		{name: "oci", open: oci.Open, source: oci.OpenSource, format: "qcow2"},
		{name: "oci+http", open: oci.Open, source: oci.OpenSource, format: "qcow2"},
		{name: "imageio+https", open: imageio.Open, source: imageio.OpenSource, disk: true},
		{name: "imageio+http", open: imageio.Open, source: imageio.OpenSource, disk: true},
		{name: "glance", open: glance.Open, source: glance.OpenSource, format: "qcow2"},
		{name: "glance+import", open: glance.Open, format: "qcow2"},
		{name: "nbd", open: nbd.Open, source: nbd.OpenSource, disk: true},
		{name: "nbds", open: nbd.Open, source: nbd.OpenSource, disk: true},
		{name: "nbd+unix", open: nbd.Open, source: nbd.OpenSource, disk: true},
		{name: "nbds+unix", open: nbd.Open, source: nbd.OpenSource, disk: true},
	}
}
