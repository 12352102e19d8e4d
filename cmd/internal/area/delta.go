package area

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/convert"
	"flatimg/layers"
)

// delta is the file of what the layers above one have changed.
func (e *export) delta(disk convert.Disk, up servers.Upload) (maker, error) {
	layer, err := e.image.LayerNamed(e.Since)
	if err != nil {
		return nil, fmt.Errorf("--since: %w", err)
	}
	base := e.image.Layers()[layer]
	changes, err := convert.ChangesSince(disk, e.image.At(layer), layer, e.spec)
	if err != nil {
		return nil, err
	}
	// At a server the base is beside it, if it is there at all.
	backing := convert.Backing{Name: filepath.Base(base.Path), Format: base.Format()}
	if local, ok := up.(servers.Local); ok {
		if backing.Name, err = backingName(local.Dir(), base.Path); err != nil {
			return nil, err
		}
	}
	return deltaMaker(changes, e.spec, backing)
}

// deltaMaker makes the file that holds the changes.
func deltaMaker(changes *convert.Changes, spec convert.Spec, backing convert.Backing) (maker, error) {
	if spec.Packed() {
		return packed{func() (convert.Packer, error) { return changes.Packer(backing) }}, nil
	}
	target, err := changes.Target(backing)
	return laidOut{target}, err
}

// backingName is the name by which an image in the folder dir finds base: a
// relative one when base is in the same folder or below, so that the folder can
// be moved.
func backingName(dir, base string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if base, err = filepath.Abs(base); err != nil {
		return "", err
	}
	if rel, err := filepath.Rel(dir, base); err == nil && !strings.HasPrefix(rel, "..") {
		return rel, nil
	}
	return base, nil
}

// overlay makes the image of a complete file as an overlay on another image,
// with what differs from that.
func (im *importer) overlay(ctx context.Context, src *source, name string) (err error) {
	spec, err := convert.ParseSpec(cmp.Or(im.Format, "qcow2"))
	if err != nil {
		return err
	}
	base, err := layers.Open(im.Onto, im.baseOptions())
	if err != nil {
		return err
	}
	defer base.Close()
	disk, err := im.openOnto(src)
	if err != nil {
		return err
	}
	defer disk.Close()
	dest := im.destination(spec, name)
	if err := errors.Join(checkNotSource(base, dest, name), checkNotSource(disk, dest, name)); err != nil {
		return err
	}
	changes, err := im.changes(ctx, disk, base, spec)
	if err != nil {
		return err
	}
	up, err := im.target(dest, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, up.Close(false)) }()
	local, ok := up.(servers.Local)
	if !ok {
		return cli.Usagef("%s: an overlay is made as a file", up)
	}
	backing := convert.Backing{Format: base.Layers()[len(base.Layers())-1].Format()}
	if backing.Name, err = backingName(local.Dir(), im.Onto); err != nil {
		return err
	}
	m, err := deltaMaker(changes, spec, backing)
	if err != nil {
		return err
	}
	f, err := local.Create()
	if err != nil {
		return err
	}
	stats, err := m.make(ctx, f, im.Meter)
	if err != nil {
		return fillError(up.String(), err, "choose another destination, or free space there")
	}
	if err := errors.Join(checkUnchanged(base), checkUnchanged(disk)); err != nil {
		return err
	}
	if err := up.Publish(ctx); err != nil {
		return err
	}
	im.report.Dest, im.report.Stats, im.report.SHA256 = up.String(), stats, nil
	return nil
}

// baseOptions open BASE: what is said of the source is not said of it.
func (im *importer) baseOptions() layers.Options {
	o := im.Open
	o.Format, o.Snapshot = "", ""
	return o
}

// openOnto opens the source's image. One that is itself an overlay gets BASE in
// place of the file that it names.
func (im *importer) openOnto(src *source) (*layers.Image, error) {
	o := im.Open
	summary, err := layers.Probe(src.Name(), o)
	if err != nil {
		return nil, err
	}
	if summary.Backing != "" && len(o.Parents) == 0 {
		o.Parents = map[string]string{summary.Backing: im.Onto}
		o.ParentFormats = map[string]string{im.Onto: ""} // BASE need not have the recorded format
		if recorded, onto := filepath.Base(summary.Backing), filepath.Base(im.Onto); recorded != onto {
			im.Meter.Say(fmt.Sprintf("it was made on %s; it is put onto %s, which must hold the same", recorded, onto))
		}
	}
	disk, err := layers.Open(src.Name(), o)
	if err != nil {
		return nil, err
	}
	if disk.Size() < 1 {
		disk.Close()
		return nil, &cli.Error{Err: fmt.Errorf("%s: the disk is empty", im.Source), Code: cli.ExitSource}
	}
	return disk, nil
}

// changes finds what differs between disk and base, by reading what the offset
// maps leave open.
func (im *importer) changes(ctx context.Context, disk, base *layers.Image, spec convert.Spec) (*convert.Changes, error) {
	var changes *convert.Changes
	// When base is below in the chain of disk, its own layers can't differ.
	top := len(base.Layers()) - 1
	layer, err := disk.LayerNamed(base.Layers()[top].Path)
	if err == nil {
		changes, err = convert.ChangesSince(disk, disk.At(layer), layer, spec)
	} else {
		changes, err = convert.ChangesFrom(disk, base, spec)
	}
	if err != nil {
		return nil, err
	}
	im.Meter.Start("comparing", changes.Length())
	return changes.Compare(ctx, base, im.Meter.Add)
}
