package convert

import (
	"errors"
	"fmt"
)

// Changes are the clusters in which a disk differs, or may differ, from another
// one, the base: a target that holds only these is a delta, which reads the rest
// from the base as its backing file. [ChangesSince] and [ChangesFrom] find them
// without reading data, [Changes.Compare] by reading it. Read only, valid while
// the images are open.
type Changes struct {
	disk   Disk // as large as the target will be
	spec   Spec
	values values
	bits   uint // log2 of the cluster size in bytes
	// changed has a bit for each cluster of the disk: may the base not have
	// what is in it? Those of data are the ones among them with other bytes
	// than zeros; the others hide what the base has.
	changed, data *bitmap
}

// ChangesSince returns the clusters that layers above the given one decide on.
// below is the disk as that layer shows it ([layers.Image.At]), and disk the
// whole one, or what [DropZeros] makes of it. A cluster that is zeros in both is
// not a change, whoever says so. The spec is that of the delta; see
// [Changes.Target]. Only the offset maps are read.
func ChangesSince(disk, below Disk, layer int, spec Spec) (*Changes, error) {
	c, err := newChanges(disk, spec)
	if err != nil {
		return nil, err
	}
	return c.find(func() error {
		for e, err := range disk.Extents(0, disk.Size()) {
			switch {
			case err != nil:
				return err
			case e.Layer <= layer:
				continue
			case holdsData(e):
				err = c.change(e.Offset, e.Length)
			default:
				err = c.changeData(below, e.Offset, e.Length)
			}
			if err != nil {
				return err
			}
		}
		// Where the delta is larger than the disk, the base must not show.
		return c.changeData(below, disk.Size(), c.disk.Size()-disk.Size())
	})
}

// ChangesFrom returns the clusters where disk or base hold data, all that can
// differ. The disks need not have anything to do with each other; base is
// zeros past its end. The spec is that of the delta; see [Changes.Target]. Only
// the offset maps are read.
func ChangesFrom(disk, base Disk, spec Spec) (*Changes, error) {
	c, err := newChanges(disk, spec)
	if err != nil {
		return nil, err
	}
	return c.find(func() error {
		return errors.Join(c.changeData(disk, 0, c.disk.Size()), c.changeData(base, 0, c.disk.Size()))
	})
}

// newChanges returns no changes yet.
func newChanges(disk Disk, spec Spec) (*Changes, error) {
	v, err := deltaValues(spec)
	if err != nil {
		return nil, err
	}
	if disk, err = growAsAsked(disk, spec.VirtualSize); err != nil {
		return nil, err
	}
	disk = grow(disk, roundUp(disk.Size(), sectorSize))
	if err := checkQcow2Disk(disk.Size(), v); err != nil {
		return nil, err
	}
	bits := log2(v["cluster_size"].bytes)
	n := shiftUp(disk.Size(), bits)
	return &Changes{disk: disk, spec: spec, values: v, bits: bits, changed: newBitmap(n), data: newBitmap(n)}, nil
}

// deltaValues returns the options of a delta: qcow2 is the only target that can
// have a backing file.
func deltaValues(spec Spec) (values, error) {
	f, v, err := spec.resolve()
	if err != nil {
		return nil, err
	}
	if f.name != qcow2Format.name {
		return nil, &SpecError{fmt.Errorf("target format %s can't hold only the changes to another image", f.name), "qcow2 can: --format qcow2"}
	}
	if qcow2Version(v) < 3 {
		// It has no cluster that hides what the backing file has.
		return nil, &SpecError{fmt.Errorf("target format qcow2: compat=%s can't hold only the changes to another image", v["compat"].text), "leave out compat"}
	}
	return v, nil
}

// find has mark set the bits of changed, looks which of them hold data, and
// returns c.
func (c *Changes) find(mark func() error) (*Changes, error) {
	err := mark()
	c.changed.index() // for runs
	for from, to := range c.changed.runs() {
		if err != nil {
			break
		}
		err = eachData(c.disk, from<<c.bits, (to-from)<<c.bits, func(off, length int64) error {
			return c.set(c.data, off, length)
		})
	}
	return c.finish(err)
}

// finish returns c, of which all bits are set unless err says otherwise.
func (c *Changes) finish(err error) (*Changes, error) {
	if errors.Is(err, errFragmented) {
		err = fragmentedQcow2(c.disk.Size(), c.values)
	}
	if err != nil {
		return nil, err
	}
	c.changed.index()
	c.data.index()
	return c, nil
}

// set sets the bits of b for the clusters that have a part in the range.
func (c *Changes) set(b *bitmap, off, length int64) error {
	b.set(off>>c.bits, shiftUp(off+length, c.bits))
	if b.owned > maxOwnedPages {
		return errFragmented
	}
	return nil
}

func (c *Changes) change(off, length int64) error { return c.set(c.changed, off, length) }

// changeData makes what d has of data in the range a change.
func (c *Changes) changeData(d Disk, off, length int64) error {
	return eachData(d, off, length, c.change)
}

// eachData calls use for the data of d in the range, which may pass its end.
func eachData(d Disk, off, length int64, use func(off, length int64) error) error {
	length = min(length, d.Size()-off)
	if length <= 0 {
		return nil
	}
	for e, err := range d.Extents(off, length) {
		if err == nil && holdsData(e) {
			err = use(e.Offset, e.Length)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Length of the clusters in bytes, which [Changes.Compare] has to look at.
func (c *Changes) Length() int64 { return c.changed.count() << c.bits }

// Data is how many of these bytes a target stores, before compression.
func (c *Changes) Data() int64 { return c.data.count() << c.bits }

// Target lays out the delta, as [New] does a disk: a qcow2 with the options of
// the spec and a backing file. Clusters are stored whole, filled up with what the
// base has.
func (c *Changes) Target(b Backing) (Target, error) {
	if isPackedQcow2(c.values) {
		return nil, &PackedError{c.spec}
	}
	return c.layout(b)
}

// Packer prepares to write the delta in the compressed form that the spec asks
// for, as [NewPacker] does a disk.
func (c *Changes) Packer(b Backing) (Packer, error) {
	if !isPackedQcow2(c.values) {
		return nil, fmt.Errorf("target format %s is not packed", c.spec)
	}
	t, err := c.layout(b)
	if err != nil {
		return nil, err
	}
	return packQcow2(t, c.values), nil
}

func (c *Changes) layout(b Backing) (*qcow2, error) {
	if err := b.check(c.bits); err != nil {
		return nil, err
	}
	content := &clusters{src: part{c.disk, c.bits, c.data}, bits: c.bits, present: c.data}
	return placeQcow2Content(c.disk.Size(), content, c.changed, b, c.values)
}
