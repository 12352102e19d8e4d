package main

import (
	"path/filepath"
	"strconv"

	"flatimg/integration/rig"
)

// rss measures the memory that exports of a chain take, for several servers.
func rss(b *bench) (figures []figure) {
	im := b.sevenLayers()
	measure := func(name string, prepare func() (dest string, env []string)) {
		b.scoped(func() {
			dest, env := prepare()
			peak := b.exportMemory(env, "--stream", "--format", "raw", im.Top, dest)
			figures = append(figures, figure{what: "peak memory, export by " + name, ours: peak, unit: bytes, goal: 150 * mib, absolute: true})
		})
	}
	measure("SFTP", func() (string, []string) {
		s := rig.Sshd(b)
		return sshURL(s, filepath.Join(s.Dir, "disk.raw")), []string{"FLATIMG_SSH=" + s.Command}
	})
	measure("WebDAV", func() (string, []string) { return rig.Apache(b).URL + "disk.raw", nil })
	measure("S3", func() (string, []string) {
		s := rig.Versitygw(b)
		return "s3://" + s.Bucket + "/disk.raw", append(s.Env(), "AWS_ENDPOINT_URL="+s.URL)
	})
	measure("NBD", func() (string, []string) {
		return rig.Nbdkit(b, "memory", strconv.FormatInt(im.Size, 10)).URI, nil
	})
	return figures
}
