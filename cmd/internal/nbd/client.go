package nbd

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// Client uses one export. It is safe for concurrent use.
type Client struct {
	// Read only.
	export export
	conns  []*conn

	// edges has an element while blocks are changed in part.
	edges chan struct{}
	// zeroes is the most that one WRITE_ZEROES covers, in bytes.
	zeroes atomic.Int64
	turn   atomic.Uint32
	closed atomic.Bool
}

// Flags say what a server can do with an export; section "Transmission flags".
type Flags struct {
	ReadOnly    bool
	Flush       bool // without it, [Client.Flush] does nothing
	Trim        bool
	WriteZeroes bool // without it, [Client.WriteZeroes] sends zeros
	FastZero    bool
	MultiConn   bool
	// Status: the server tells holes, and [Options.Status] asked for it.
	Status bool
}

// Flags of the export.
func (c *Client) Flags() Flags {
	has := func(flag uint16) bool { return c.export.flags&flag != 0 }
	return Flags{
		ReadOnly:    has(flagReadOnly),
		Flush:       has(flagSendFlush),
		Trim:        has(flagSendTrim),
		WriteZeroes: has(flagSendWriteZeroes),
		FastZero:    has(flagSendFastZero),
		MultiConn:   has(flagCanMultiConn),
		Status:      c.export.hasContext,
	}
}

// Size of the export in bytes.
func (c *Client) Size() int64 { return c.export.size }

// Blocks are the sizes of requests. A caller needs no heed of them; requests of
// at least the preferred size at multiples of it are fastest.
func (c *Client) Blocks() Blocks { return c.export.blocks }

// Connections is how many connections there are.
func (c *Client) Connections() int { return len(c.conns) }

// Close ends the connections as the protocol wants it, which takes seconds at
// most. Requests in flight may still be answered; those that come later fail
// with an error that wraps [net.ErrClosed]. It does not flush.
func (c *Client) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	var group sync.WaitGroup
	for _, conn := range c.conns {
		group.Go(conn.close)
	}
	group.Wait()
	return nil
}

// Flush returns when all that was written before is durable, on all connections.
// It is for callers whose writes have returned. Where [Flags.Flush] is not set
// it does nothing.
func (c *Client) Flush(ctx context.Context) error {
	if !c.Flags().Flush {
		return ctx.Err()
	}
	return c.do(ctx, newRequest(cmdFlush, 0, 0), nil)
}

// do sends a request on the connection that has the fewest.
func (c *Client) do(ctx context.Context, r *request, p payload) error {
	if c.closed.Load() {
		return fmt.Errorf("NBD client: %w", net.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Begun at another one each time, lest the first has all that come alone.
	turn := int(c.turn.Add(1) % uint32(len(c.conns)))
	best := c.conns[turn]
	for i := range c.conns {
		conn := c.conns[(turn+i)%len(c.conns)]
		if err := conn.why(); err != nil {
			return err
		}
		if len(conn.slots) < len(best.slots) {
			best = conn
		}
	}
	return best.do(ctx, r, p)
}

// check says whether a range lies in the export.
func (c *Client) check(off, length int64) error {
	if off < 0 || length < 0 || length > c.Size()-off {
		return fmt.Errorf("%d bytes at offset %#x are outside of the export, which has %d", length, off, c.Size())
	}
	return nil
}

// pieces goes through a range: it calls part for what is only a part of a block,
// and whole for what are whole blocks, at most limit bytes each.
func (c *Client) pieces(off, length, limit int64, whole, part func(off, length int64) error) error {
	if err := c.check(off, length); err != nil {
		return err
	}
	head, blocks, tail := cut(off, length, c.export.blocks.Minimum)
	if head > 0 {
		if err := part(off, head); err != nil {
			return err
		}
	}
	end := off + head + blocks
	for at := off + head; at < end; {
		n := min(limit, end-at)
		if err := whole(at, n); err != nil {
			return err
		}
		at += n
	}
	if tail > 0 {
		return part(end, tail)
	}
	return nil
}
