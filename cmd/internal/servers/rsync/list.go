package rsync

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"flatimg/cmd/internal/servers/transfer"
)

// entry is what rsync tells about a file.
type entry struct {
	kind  byte // as ls tells: '-' a file, 'd' a folder
	size  int64
	mtime string // in seconds
}

// stat looks at a path; a symbolic link is followed. [fs.ErrNotExist]: it is
// not there.
func (s *server) stat(ctx context.Context, path string) (entry, error) {
	out, err := s.run(ctx, 0, "--list-only", "--dirs", "--copy-links", s.arg(path))
	if err != nil {
		if text := err.Error(); strings.Contains(text, "No such file or directory (2)") || strings.Contains(text, "has no referent") {
			err = transfer.Lasting(fs.ErrNotExist)
		}
		return entry{}, err
	}
	return parseEntry(out)
}

// parseEntry parses the first line of rsync --list-only: mode, size, date,
// time and name.
func parseEntry(out string) (entry, error) {
	line, _, _ := strings.Cut(out, "\n")
	fields := strings.Fields(line)
	if len(fields) < 4 {
		return entry{}, transfer.Lasting(fmt.Errorf("rsync lists %.100q", line))
	}
	size, err := strconv.ParseInt(strings.ReplaceAll(fields[1], ",", ""), 10, 64)
	if err != nil || size < 0 {
		return entry{}, transfer.Lasting(fmt.Errorf("rsync lists a size of %.100q", fields[1]))
	}
	return entry{kind: fields[0][0], size: size, mtime: fields[2] + " " + fields[3]}, nil
}
