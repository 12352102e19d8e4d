package main

import (
	"path/filepath"
	"strings"

	"flatimg/integration/rig"
)

// sftp compares exports over ssh with scp: of a ready file, half of which is
// holes, and of a chain that qemu-img has to convert first. Our side verifies
// what arrived and makes it durable, which scp doesn't.
func sftp(b *bench) (figures []figure) {
	size := b.scaled(1024 * mib)
	im := b.sevenLayers()
	b.scoped(func() {
		server := rig.Sshd(b)
		dest := filepath.Join(server.Dir, "disk")
		scp := func(file string) {
			config := strings.Fields(server.Command)[1:] // -F CONFIG
			b.command("scp", append(config, "-q", file, server.User+"@"+server.Host+":"+dest)...)
		}
		export := func(im, format string) side {
			return b.uploaded(dest, func() {
				b.flatimg("export", "--quiet", "--stream", "--format", format, "--ssh-command", server.Command, im, sshURL(server, dest))
			})
		}
		ready := b.randomFile(size, 4*mib, true)
		m := b.alternate(export(ready, "raw"), b.uploaded(dest, func() { scp(ready) }))
		figures = append(figures, throughput("SFTP of a ready file, half holes, against scp", size, m, 1))

		converted := filepath.Join(b.TempDir(), "disk.qcow2")
		m = b.alternate(export(im.Top, "qcow2"), b.uploaded(dest, func() {
			b.command("qemu-img", "convert", "-O", "qcow2", im.Top, converted)
			scp(converted)
		}))
		figures = append(figures, throughput("SFTP of 7 layers as qcow2, against convert && scp", im.Size, m, 1.5))
	})
	return figures
}
