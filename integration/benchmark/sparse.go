package main

import (
	"path/filepath"
	"strconv"

	"flatimg/integration/rig"
)

// sparse compares the export of a disk of 1 TiB that holds 1 GiB of data with
// that of a disk which is filled with as much: what nobody wrote must cost
// nothing. The block device is a file with holes: one in memory takes longer to
// zero what it has not got.
func sparse(b *bench) (figures []figure) {
	const wide, run = int64(1 << 40), int64(mib)
	data := b.scaled(1024 * mib)
	b.Logf("making a disk of 1 TiB and one of its data")
	thin, full := b.build(evenly(wide, data, run)), b.build(evenly(data, data, run))
	measure := func(what string, export func(im *rig.Image) side) {
		b.warm(append(thin.Paths, full.Paths...))
		m := b.alternate(export(thin), export(full))
		figures = append(figures, figure{what: what, ours: m[0], peer: m[1], unit: seconds, goal: 1.2})
	}
	b.scoped(func() {
		server := rig.Sshd(b)
		dest := filepath.Join(server.Dir, "disk.raw")
		measure("SFTP of 1 TiB, against one of its data", func(im *rig.Image) side {
			return b.uploaded(dest, func() {
				b.flatimg("export", "--quiet", "--stream", "--ssh-command", server.Command, im.Top, sshURL(server, dest))
			})
		})
	})
	measure("NBD of 1 TiB, against one of its data", func(im *rig.Image) side {
		return func() (elapsed float64) {
			b.scoped(func() {
				device := b.TempDir() + "/device"
				b.command("truncate", "-s", strconv.FormatInt(im.Size, 10), device)
				server := rig.Nbdkit(b, "file", device)
				b.command("sync")
				elapsed = timed(func() { b.flatimg("export", "--quiet", "--stream", im.Top, server.URI) })
			})
			return elapsed
		}
	})
	return figures
}

// evenly returns a chain of one layer with data bytes in runs, evenly over a
// disk of size bytes.
func evenly(size, data, run int64) rig.Chain {
	c := rig.Chain{Size: size, Layers: make([]rig.Layer, 1)}
	for off := int64(0); off < size; off += size / (data / run) {
		c.Layers[0].Writes = append(c.Layers[0].Writes, rig.Write{Off: off, Len: run})
	}
	return c
}
