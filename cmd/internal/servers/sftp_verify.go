package servers

import (
	"context"
	"io"
)

var _ = (Verifier)((*sftpUpload)(nil))
var _ = (ReadBacker)((*sftpUpload)(nil))

// Verify implements [Verifier] with a second connection.
func (u *sftpUpload) Verify(ctx context.Context, want []byte) (string, error) {
	return u.server.target.verifySHA256(ctx, u.server.retry, u.String(), u.partPath(), want)
}

// ReadBack implements [ReadBacker].
func (u *sftpUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	counted := &countingWriter{w: w}
	return u.server.do(ctx, u.String(), "read it back", func(c *sftpConn) error {
		f, err := c.Open(u.partPath())
		if err != nil {
			return err
		}
		defer f.Close()
		if counted.n > 0 {
			u.server.retry.progress()
		}
		p := pipeline{src: f, requests: c.requests(), chunk: c.packet}
		return p.read(ctx, counted, off+counted.n, length-counted.n)
	})
}
