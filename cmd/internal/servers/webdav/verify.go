package webdav

import (
	"bytes"
	"context"
	"io"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

var _ = (servers.Verifier)((*upload)(nil))
var _ = (servers.ReadBacker)((*upload)(nil))

// sentTo is where the bytes are until Publish.
func (u *upload) sentTo() web.Address {
	if u.direct || u.published {
		return u.to
	}
	return u.part()
}

// Verify implements [servers.Verifier] for the few servers that tell a checksum.
func (u *upload) Verify(ctx context.Context, want []byte) (string, error) {
	if want == nil {
		return "", transfer.NoVerification(u.String(), "the SHA-256 is not known")
	}
	sum, err := u.client.Checksum(ctx, u.sentTo(), u.src.Size(), "sha256")
	switch {
	case err != nil:
		return "", u.fail("ask for its checksum", err)
	case sum == nil:
		return "", transfer.NoVerification(u.String(), "the server tells no SHA-256")
	case !bytes.Equal(sum.Sum, want):
		return "", transfer.Differs(u.String(), sum.Sum, sum.By, want)
	}
	return sum.By, nil
}

// ReadBack implements [servers.ReadBacker].
func (u *upload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	return u.fail("read it back", u.client.ReadAll(ctx, u.sentTo(), w, off, length))
}
