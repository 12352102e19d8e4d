package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// WriteAt writes p to the export. What exceeds the maximum of [Client.Blocks] is
// written in several requests, one after the other. A block that p covers in
// part is read, changed and written.
func (c *Client) WriteAt(ctx context.Context, p []byte, off int64) error {
	in := func(at, length int64) []byte { return p[at-off:][:length] }
	whole := func(at, length int64) error { return c.write(ctx, at, length, memory(in(at, length))) }
	part := func(at, length int64) error {
		return c.change(ctx, at, func(b []byte) error {
			copy(b, in(at, length))
			return nil
		})
	}
	return c.writePieces(off, int64(len(p)), c.export.blocks.Maximum, whole, part)
}

// WriteFrom writes length bytes at fileOff of f to the export at off, as WriteAt
// does, but without copying them through this process unless the connection is
// encrypted. It neither uses nor moves the file's position.
//
// A file that ends too early is an error that wraps [io.ErrUnexpectedEOF]. If it
// is cut off or can't be read while it is sent, the connection breaks, too, and
// all its requests fail for that reason.
func (c *Client) WriteFrom(ctx context.Context, f *os.File, fileOff, off, length int64) error {
	fi, err := f.Stat()
	switch {
	case err != nil:
		return err
	case fileOff < 0 || fi.Mode().IsRegular() && length > fi.Size()-fileOff:
		return fmt.Errorf("%s: %d bytes at offset %#x of %d: %w", f.Name(), length, fileOff, fi.Size(), io.ErrUnexpectedEOF)
	}
	whole := func(at, length int64) error {
		return c.write(ctx, at, length, fileRange{f, fileOff + at - off, length})
	}
	part := func(at, length int64) error {
		return c.change(ctx, at, func(b []byte) error {
			n, err := f.ReadAt(b[:length], fileOff+at-off)
			if int64(n) == length {
				return nil
			}
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%s at offset %#x: %w", f.Name(), fileOff+at-off, err)
		})
	}
	return c.writePieces(off, length, c.export.blocks.Maximum, whole, part)
}

// WriteZeroes makes a range read as zeros. With hole set, the server may release
// the space that the range takes. Where [Flags.WriteZeroes] is not set, zeros
// are sent.
func (c *Client) WriteZeroes(ctx context.Context, off, length int64, hole bool) error {
	if !c.Flags().WriteZeroes {
		return c.sendZeros(ctx, off, length)
	}
	whole := func(at, length int64) error { return c.zero(ctx, at, length, hole) }
	return c.writePieces(off, length, maxZeroes, whole, c.zeroPart(ctx))
}

// zero zeroes whole blocks. Most servers take more at a time than their maximum,
// which is about data that is sent; one that does not answers EINVAL (section
// "Block size constraints") or EOVERFLOW, and is not asked again.
func (c *Client) zero(ctx context.Context, off, length int64, hole bool) error {
	for end := off + length; off < end; {
		limit := c.zeroes.Load()
		r := newRequest(cmdWriteZeroes, off, min(limit, end-off))
		if !hole {
			r.flags = cmdFlagNoHole
		}
		err := c.do(ctx, r, nil)
		least := c.export.blocks.Maximum
		tooLong := errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOVERFLOW)
		switch {
		case err == nil:
			off += r.length
		case tooLong && r.length > least:
			c.zeroes.Store(least)
		default:
			return err
		}
	}
	return nil
}

// sendZeros writes zeros as data.
func (c *Client) sendZeros(ctx context.Context, off, length int64) error {
	const most = 1 << 20
	limit := min(most, c.export.blocks.Maximum)
	zeros := make(memory, min(limit, max(length, 0)))
	whole := func(at, length int64) error { return c.write(ctx, at, length, zeros[:length]) }
	return c.writePieces(off, length, limit, whole, c.zeroPart(ctx))
}

// zeroPart returns a function that zeroes part of a block.
func (c *Client) zeroPart(ctx context.Context) func(off, length int64) error {
	return func(off, length int64) error {
		return c.change(ctx, off, func(b []byte) error {
			clear(b[:length])
			return nil
		})
	}
}

// write is one request.
func (c *Client) write(ctx context.Context, off, length int64, p payload) error {
	return c.do(ctx, newRequest(cmdWrite, off, length), p)
}

// writePieces is pieces for requests that change the export.
func (c *Client) writePieces(off, length, limit int64, whole, part func(off, length int64) error) error {
	if c.Flags().ReadOnly {
		// As servers answer (section "Error values").
		return &Error{commandName(cmdWrite), syscall.EPERM, "the export is read-only", off}
	}
	return c.pieces(off, length, limit, whole, part)
}

// change calls edit with the rest of a block from the byte at off on, and writes
// it back. One block is changed at a time: two writers may meet in it.
func (c *Client) change(ctx context.Context, off int64, edit func(b []byte) error) error {
	select {
	case c.edges <- struct{}{}:
		defer func() { <-c.edges }()
	case <-ctx.Done():
		return ctx.Err()
	}
	block, start, err := c.readBlock(ctx, off)
	if err != nil {
		return err
	}
	if err := edit(block[off-start:]); err != nil {
		return err
	}
	return c.write(ctx, start, int64(len(block)), memory(block))
}
