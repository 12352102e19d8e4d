package rsync

import (
	"bytes"
	"strconv"
	"strings"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

// progressParser reads what rsync --info=progress2 prints, a line at a time:
//
//	10223616  15%    4.80MB/s    0:00:12
//
// and calls at with the offset in the file.
type progressParser struct {
	at   func(off int64)
	line []byte
}

func (p *progressParser) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		end := bytes.IndexAny(b, "\r\n")
		if end < 0 {
			const most = 4096 // far more than a line
			p.line = append(p.line, b[:min(len(b), most-min(len(p.line), most))]...)
			break
		}
		if off, ok := parseProgress(string(p.line) + string(b[:end])); ok {
			p.at(off)
		}
		p.line, b = p.line[:0], b[end+1:]
	}
	return n, nil
}

func parseProgress(line string) (off int64, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 2 || !strings.HasSuffix(fields[1], "%") {
		return 0, false
	}
	off, err := strconv.ParseInt(fields[0], 10, 64)
	return off, err == nil && off >= 0
}

// meter tells a log how much data has left, of a file that is sent from its
// beginning to its end, holes and all.
type meter struct {
	src servers.Source
	log servers.Log
	at  int64 // the offset before which all is counted
}

// move counts up, or back, to an offset. A file that rsync sends twice counts
// once.
func (m *meter) move(off int64) {
	off = min(off, m.src.Size())
	n, err := transfer.DataBetween(m.src, min(m.at, off), max(m.at, off))
	if err != nil {
		return // the file's reader will tell
	}
	if off < m.at {
		n = -n
	}
	m.at = off
	if n != 0 {
		m.log.Sent(n)
	}
}
