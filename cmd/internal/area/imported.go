package area

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/schemes"
	"flatimg/convert"
	"flatimg/layers"
)

// make makes the image of a complete file, which people know by name under the
// place where.
func (im *importer) make(ctx context.Context, src *source, where, name string) error {
	if im.Onto != "" {
		return im.overlay(ctx, src, name)
	}
	spec, asItIs, err := im.spec(src, name)
	if err != nil {
		return err
	}
	if asItIs {
		return im.place(ctx, src, name)
	}
	report, err := Export(ctx, Options{
		Image: src.Name(), Open: im.Open, Dest: im.destination(spec, name), Format: spec.String(),
		Server: servers.Options{Force: im.Force}, Meter: im.Meter,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	im.report.Dest, im.report.Stats = report.Dest, report.Stats
	im.report.SHA256 = nil // that of the file that came, not of the image
	return nil
}

// spec is the format of the image; asItIs says that the file is the image.
func (im *importer) spec(src *source, name string) (spec convert.Spec, asItIs bool, err error) {
	if im.Format != "" {
		spec, err = convert.ParseSpec(im.Format)
		return spec, false, err
	}
	wanted := convert.FormatOf(im.Image)
	if schemes.IsFolder(im.Image) || wanted == "" || wanted == convert.FormatOf(name) {
		return convert.Spec{}, true, nil
	}
	summary, err := layers.Probe(src.Name(), im.Open)
	if err == nil && summary.Format == wanted {
		return convert.Spec{}, true, nil
	}
	spec, err = convert.ParseSpec(wanted)
	return spec, false, err
}

// destination is the path of the image of a file called name.
func (im *importer) destination(spec convert.Spec, name string) string {
	if schemes.IsFolder(im.Image) {
		return filepath.Join(im.Image, targetName(name, "", spec))
	}
	return im.Image
}

// place makes the file the image, as it is.
func (im *importer) place(ctx context.Context, src *source, name string) (err error) {
	up, err := im.target(im.Image, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, up.Close(false)) }()
	stats := Stats{Size: src.size}
	if err := eachRun(src, func(start, end int64) error {
		stats.Data += end - start
		return nil
	}); err != nil {
		return err
	}
	im.Meter.Start("copying", stats.Data)
	if err := im.copy(ctx, up, src, &stats); err != nil {
		return fillError(up.String(), err, "choose another destination, or free space there")
	}
	if im.local != nil {
		if err := checkFileUnchanged(im.local); err != nil {
			return err
		}
	}
	if err := up.Publish(ctx); err != nil {
		return err
	}
	im.report.Dest, im.report.Stats = up.String(), stats
	if s, err := layers.Probe(up.String(), im.Open); err == nil && s.Backing != "" {
		if _, err := os.Stat(s.Backing); err != nil {
			im.Meter.Say(fmt.Sprintf("%s is an overlay on %s, which is not there: --onto BASE puts it on another image", up, s.Backing))
		}
	}
	return nil
}

// copy brings the file to its place: by sharing its blocks where that is
// possible.
func (im *importer) copy(ctx context.Context, up servers.Upload, src *source, stats *Stats) error {
	local, ok := up.(servers.Local)
	if !ok { // a device
		if c, ok := up.(servers.Checker); ok {
			if err := c.Check(ctx, servers.File{Size: src.size, Data: stats.Data}); err != nil {
				return err
			}
		}
		return up.Send(ctx, src, meterLog{im.Meter})
	}
	if sameFileSystem(local.Dir(), filepath.Dir(src.Name())) {
		f, err := local.Create()
		if err != nil {
			return err
		}
		if err := unix.IoctlFileClone(int(f.Fd()), int(src.Fd())); err == nil {
			stats.Shared = stats.Data
			return flush(ctx, f, src.size)
		}
	}
	return up.Send(ctx, src, meterLog{im.Meter})
}

// eachRun calls f for each run of data of src, in order, until it fails.
func eachRun(src servers.Source, f func(start, end int64) error) error {
	for off := int64(0); off < src.Size(); {
		start, end, err := src.NextData(off)
		if err != nil {
			return err
		}
		if start < end {
			if err := f(start, end); err != nil {
				return err
			}
		}
		off = end
	}
	return nil
}
