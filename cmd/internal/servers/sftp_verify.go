package servers

import (
	"context"
	"io"
	"strings"
)

var _ = (Verifier)((*sftpUpload)(nil))
var _ = (ReadBacker)((*sftpUpload)(nil))

// Verify implements [Verifier] with a second connection.
func (u *sftpUpload) Verify(ctx context.Context, want []byte) (string, error) {
	path, err := u.server.absolute(ctx, u.String(), u.partPath())
	if err != nil {
		return "", err
	}
	return u.server.target.verifySHA256(ctx, u.server.retry, u.String(), path, want)
}

// absolute returns the path that the account's shell has for one: its folder at
// the beginning need not be that of the SFTP server.
func (s *sftpServer) absolute(ctx context.Context, where, path string) (string, error) {
	if !strings.HasPrefix(path, "./") {
		return path, nil
	}
	err := s.do(ctx, where, "ask for its path", func(c *sftpConn) (err error) {
		path, err = c.RealPath(path)
		return err
	})
	return path, err
}

// ReadBack implements [ReadBacker].
func (u *sftpUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	counted := &countingWriter{w: w}
	var before int64
	return u.server.do(ctx, u.String(), "read it back", func(c *sftpConn) error {
		f, err := c.Open(u.partPath())
		if err != nil {
			return err
		}
		defer f.Close()
		if counted.n > before {
			u.server.retry.progress()
		}
		before = counted.n
		p := pipeline{src: f, requests: c.requests(), chunk: c.packet}
		return p.read(ctx, counted, off+counted.n, length-counted.n)
	})
}
