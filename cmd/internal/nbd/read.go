package nbd

import "context"

// ReadAt fills p from the export. What exceeds the maximum of [Client.Blocks] is
// read in several requests, one after the other.
func (c *Client) ReadAt(ctx context.Context, p []byte, off int64) error {
	in := func(at, length int64) []byte { return p[at-off:][:length] }
	whole := func(at, length int64) error { return c.read(ctx, in(at, length), at) }
	part := func(at, length int64) error {
		block, start, err := c.readBlock(ctx, at)
		if err != nil {
			return err
		}
		copy(in(at, length), block[at-start:])
		return nil
	}
	return c.pieces(off, int64(len(p)), c.export.blocks.Maximum, whole, part)
}

// read is one request.
func (c *Client) read(ctx context.Context, p []byte, off int64) error {
	r := newRequest(cmdRead, off, int64(len(p)))
	r.data = p
	return c.do(ctx, r, nil)
}

// readBlock returns the block that the byte at off is in, and where it starts.
func (c *Client) readBlock(ctx context.Context, off int64) (block []byte, start int64, err error) {
	size := c.export.blocks.Minimum
	start = off - off%size
	block = make([]byte, size)
	return block, start, c.read(ctx, block, start)
}
