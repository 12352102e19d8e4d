package sftp

import (
	"context"
	"io"
	"strings"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

var _ = (servers.Verifier)((*upload)(nil))
var _ = (servers.ReadBacker)((*upload)(nil))

// Verify implements [servers.Verifier] with a second connection.
func (u *upload) Verify(ctx context.Context, want []byte) (string, error) {
	path, err := u.server.absolute(ctx, u.String(), u.partPath())
	if err != nil {
		return "", err
	}
	return u.server.target.VerifySHA256(ctx, u.server.retry, u.String(), path, want)
}

// absolute returns the path that the account's shell has for one: its folder at
// the beginning need not be that of the SFTP server.
func (s *server) absolute(ctx context.Context, where, path string) (string, error) {
	if !strings.HasPrefix(path, "./") {
		return path, nil
	}
	err := s.do(ctx, where, "ask for its path", func(c *conn) (err error) {
		path, err = c.RealPath(path)
		return err
	})
	return path, err
}

// ReadBack implements [servers.ReadBacker].
func (u *upload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	counted := &transfer.CountingWriter{W: w}
	var before int64
	return u.server.do(ctx, u.String(), "read it back", func(c *conn) error {
		f, err := c.Open(u.partPath())
		if err != nil {
			return err
		}
		defer f.Close()
		if counted.N > before {
			u.server.retry.Progress()
		}
		before = counted.N
		p := transfer.Pipeline{Src: f, Requests: c.requests(), Chunk: c.packet}
		return p.Read(ctx, counted, off+counted.N, length-counted.N)
	})
}
