package imageio

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/http"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// blockSize is how many bytes a digest is of; the server's own default.
const blockSize = 4 << 20

var _ = (servers.Verifier)((*upload)(nil))

// Verify implements [servers.Verifier]: the server hashes the disk's blocks, and
// so does this side with the source, both at the same time.
func (u *upload) Verify(ctx context.Context, _ []byte) (string, error) {
	if !u.can.has("checksum") || u.src == nil {
		return "", transfer.NoVerification(u.String(), "the server has no checksums")
	}
	size, err := u.covered(ctx)
	if err != nil {
		return "", u.fail("ask for its extents", err)
	}
	if size < u.src.Size() {
		return "", u.fail("look at what has arrived", fmt.Errorf("the disk has %d bytes of %d that were sent", size, u.src.Size()))
	}
	var got, want []byte
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		got, err = u.checksum(ctx, size)
		return err
	})
	group.Go(func() (err error) {
		want, err = blockHash(ctx, u.src, size)
		return err
	})
	if err := group.Wait(); err != nil {
		if web.HasStatus(err, http.StatusNotFound, http.StatusBadRequest) {
			return "", transfer.NoVerification(u.String(), "the server has no checksum of this kind")
		}
		return "", u.fail("ask for its checksum", err)
	}
	const by = "blake2b of blocks by ovirt-imageio"
	if !bytes.Equal(got, want) {
		return "", transfer.Differs(u.String(), got, by, want)
	}
	return by, nil
}

// covered is how many bytes the server's checksum is of: the whole disk, or the
// volume's file, which may be of another size.
func (u *upload) covered(ctx context.Context) (int64, error) {
	_, size, err := u.extents(ctx)
	if web.HasStatus(err, http.StatusNotFound) || err == nil && size < 0 {
		return max(u.size, u.src.Size()), nil
	}
	return size, err
}

// checksum asks for that of the disk, which the server has to read.
func (u *upload) checksum(ctx context.Context, size int64) ([]byte, error) {
	request := web.Request{
		Method: "GET", To: u.sub("/checksum", fmt.Sprintf("algorithm=blake2b&block_size=%d", blockSize)),
		Limit: web.SizeLimit(size),
	}
	var answer struct {
		Algorithm string `json:"algorithm"`
		BlockSize int64  `json:"block_size"`
		Checksum  string `json:"checksum"`
	}
	err := u.client.Retry.Own().Do(ctx, "ask for its checksum", func() error {
		resp, err := u.client.Send(ctx, request)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return decodeAnswer(resp.Body, &answer)
	})
	if err != nil {
		return nil, err
	}
	sum, err := hex.DecodeString(answer.Checksum)
	if err != nil || answer.Algorithm != "blake2b" || answer.BlockSize != blockSize || len(sum) != blake2b.Size256 {
		return nil, transfer.Lasting(fmt.Errorf("the checksum is not understood: %s of %d bytes, %.80q", answer.Algorithm, answer.BlockSize, answer.Checksum))
	}
	return sum, nil
}

// blockHash is the BLAKE2b-256 of the digests of the blocks of a disk of size
// bytes that begins with src; the rest is zeros. Blocks without data are not
// read, and their digest is computed once. ovirt-imageio's digests have 32 bytes
// (its blkhash.py).
func blockHash(ctx context.Context, src servers.Source, size int64) ([]byte, error) {
	all, err := blake2b.New256(nil)
	if err != nil {
		return nil, err
	}
	block := make([]byte, blockSize)
	zero := blake2b.Sum256(block)
	next := web.Piece{} // the next data
	for off := int64(0); off < size; off += blockSize {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		end := min(size, off+blockSize)
		if next.End <= off && next.Start < src.Size() {
			if next.Start, next.End, err = transfer.NextData(src, off); err != nil {
				return nil, transfer.Lasting(err)
			}
		}
		sum := zero
		switch b := block[:end-off]; {
		case next.Start < end && off < src.Size():
			n := min(end, src.Size()) - off
			if err := transfer.ReadSource(src, b[:n], off); err != nil {
				return nil, err
			}
			clear(b[n:])
			sum = blake2b.Sum256(b)
		case len(b) < blockSize:
			clear(b)
			sum = blake2b.Sum256(b)
		}
		all.Write(sum[:])
	}
	return all.Sum(nil), nil
}
