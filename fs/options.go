package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"flatimg/convert"
	"flatimg/fs/mountpoint"
	"flatimg/layers"
)

// Options say what is mounted and how.
type Options struct {
	// Sources are images or directories of images; at least one.
	Sources []string
	// Formats of the views; each image has a view in each. Default: raw.
	Formats []convert.Spec
	// AllLayers gives each layer of an image views of its own, as if it were
	// the top.
	AllLayers bool
	// Layers are the options for opening images. Format is that of sources
	// that are images; in a directory formats are always probed.
	Layers layers.Options

	// AllowOther lets all users read, not only the one who mounts.
	AllowOther bool
	// DirectIO bypasses the kernel's page cache: faster for reads of 256 KiB
	// and more that happen once, slower for all others; no shared mmap.
	DirectIO bool
	// Flags are further mount options: noexec, nodev, nosuid, noatime,
	// default_permissions.
	Flags []string
	// FSName is shown as the file system's source by df and mount. Default:
	// "flatimg".
	FSName string

	// Unmount takes the place of [mountpoint.Unmount] in a process that can't
	// unmount by itself. Default: nil, it can.
	Unmount func(ctx context.Context, path string, lazy bool) error

	// Log gets what happens while mounted. Default: nothing is logged.
	Log *slog.Logger
}

// validate fills in defaults and makes paths absolute.
func (o *Options) validate() error {
	if len(o.Sources) == 0 {
		return errors.New("no source")
	}
	var err error
	if o.Sources, err = absolute(o.Sources); err != nil {
		return err
	}
	if o.Layers.AllowDirs, err = absolute(o.Layers.AllowDirs); err != nil {
		return err
	}
	if o.Layers.SearchDirs, err = absolute(o.Layers.SearchDirs); err != nil {
		return err
	}
	if o.Layers.Parents, err = absoluteValues(o.Layers.Parents); err != nil {
		return err
	}
	if o.Layers.Cache == nil {
		// One for all images, not one for each.
		o.Layers.Cache = layers.NewCache(0, 0)
	}
	if len(o.Formats) == 0 {
		o.Formats = []convert.Spec{{Format: "raw"}}
	}
	for _, spec := range o.Formats {
		if spec.Extension() == "" {
			return fmt.Errorf("%q is not a target format", spec.Format)
		}
	}
	if o.Unmount == nil {
		o.Unmount = mountpoint.Unmount
	}
	if o.FSName == "" {
		o.FSName = "flatimg"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// absoluteValues returns m with absolute paths as values. The keys stay as they
// are stored in images.
func absoluteValues(m map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(m))
	for key, path := range m {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		out[key] = abs
	}
	return out, nil
}

// absolute returns absolute paths: the server may change its working folder.
func absolute(paths []string) ([]string, error) {
	all := make([]string, len(paths))
	for i, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		all[i] = abs
	}
	return all, nil
}
