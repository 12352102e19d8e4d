package rsync

import (
	"context"
	"errors"
	"strconv"
	"syscall"

	"flatimg/cmd/internal/servers/transfer"
)

// transfer runs rsync with args to bring a file of size bytes to where have
// bytes of it are already, and calls progress with the offset that it is at.
// What has arrived stays when it fails. rsync compares checksums of the whole
// file in the end, and transfers it again where they differ.
func (s *server) transfer(ctx context.Context, have, size int64, progress func(off int64), args ...string) error {
	line := []string{"--inplace", "--partial", "--sparse", "--ignore-times", "--info=progress2", "--outbuf=L"}
	if s.limit > 0 {
		line = append(line, "--bwlimit="+strconv.FormatInt(max(1, s.limit>>10), 10)) // KiB/s
	}
	run := func(options ...string) error {
		out := &progressParser{at: progress}
		return s.start(ctx, have, out, append(append(line, options...), args...)...)
	}
	if have == 0 {
		return run("--whole-file")
	}
	if have < size {
		err := run("--append-verify")
		if err == nil || ctx.Err() != nil || transfer.MayPass(err) || errors.Is(err, syscall.ENOSPC) {
			return err
		}
		// With --sparse, rsync (3.5.0) can't append what begins with zeros.
	}
	// Only what differs: rsync looks for it byte by byte, a few times slower.
	// The largest blocks that it takes make that quickest.
	return run("--no-whole-file", "--block-size=131072")
}
