package nbd

import (
	"context"
	"encoding/binary"
	"io"
)

// Run is a range of an export whose bytes are stored alike.
type Run struct {
	Offset, Length int64 // bytes
	// Zero says that it reads as zeros. Without it, the content is unknown.
	Zero bool
	// Hole says that the server has no space allocated for it.
	Hole bool
}

// maxRuns is how many runs are kept of one answer. A caller that needs more asks
// again for what follows.
const maxRuns = 64 << 10

// BlockStatus says what is at the beginning of the range of length bytes at off:
// one or more runs, in order and without gaps from off on. They can end before
// the range does, but not after it. Where the server tells nothing, see
// [Flags.Status], there is one run without any flag.
func (c *Client) BlockStatus(ctx context.Context, off, length int64) ([]Run, error) {
	if err := c.check(off, length); err != nil || length == 0 {
		return nil, err
	}
	if !c.export.hasContext {
		return []Run{{Offset: off, Length: length}}, nil
	}
	block := c.export.blocks.Minimum
	start := off - off%block
	end := min(start+maxStatus, (off+length+block-1)/block*block)
	r := newRequest(cmdBlockStatus, start, end-start)
	if err := c.do(ctx, r, nil); err != nil {
		return nil, err
	}
	return clip(r.runs, off, off+length), nil
}

// clip returns the part of runs in [start, end). The runs begin at or before
// start; if they end there, too, nothing is known.
func clip(runs []Run, start, end int64) []Run {
	var clipped []Run
	for _, r := range runs {
		from, to := max(r.Offset, start), min(r.Offset+r.Length, end)
		if from < to {
			clipped = append(clipped, Run{from, to - from, r.Zero, r.Hole})
		}
	}
	if len(clipped) == 0 {
		return []Run{{Offset: start, Length: end - start}}
	}
	return clipped
}

// status reads the chunk with the answer to BLOCK_STATUS; section "Structured
// reply types". Runs beyond the request, which the section allows in part, and
// beyond maxRuns are left out.
func (d *decoder) status(r *request, length int64) error {
	if length < 12 || length%8 != 4 || length > maxStatusChunk {
		return violation("a block status of %d bytes", length)
	}
	var b [8]byte
	if _, err := io.ReadFull(d.r, b[:4]); err != nil {
		return err
	}
	if context := binary.BigEndian.Uint32(b[:]); context != d.context || len(r.runs) > 0 {
		return violation("a block status with context %d, twice or not asked for", context)
	}
	off, end := r.off, r.off+r.length
	for length -= 4; length > 0; length -= 8 {
		if _, err := io.ReadFull(d.r, b[:]); err != nil {
			return err
		}
		n, flags := int64(binary.BigEndian.Uint32(b[:])), binary.BigEndian.Uint32(b[4:])
		if n == 0 {
			return violation("a block status with a run of no bytes")
		}
		run := Run{off, min(n, end-off), flags&stateZero != 0, flags&stateHole != 0}
		if run.Length > 0 {
			r.addRun(run)
			off += n
		}
	}
	return nil
}

// addRun notes a run, joined with the one before it if it is alike.
func (r *request) addRun(run Run) {
	if n := len(r.runs); n > 0 {
		last := &r.runs[n-1]
		if last.Offset+last.Length != run.Offset {
			return // others were left out before it
		}
		if last.Zero == run.Zero && last.Hole == run.Hole {
			last.Length += run.Length
			return
		}
	}
	if len(r.runs) < maxRuns {
		r.runs = append(r.runs, run)
	}
}
