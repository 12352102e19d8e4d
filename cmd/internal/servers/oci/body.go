package oci

import (
	"bufio"
	"hash"
	"io"

	"flatimg/cmd/internal/servers/web"
)

// layerBody makes the bodies of a request for the bytes [off, end) of a layer.
type layerBody struct {
	s        *layerSender
	off, end int64
	// base is how many bytes of data log knew of before.
	base int64
	// summed says that the digest of all is known already.
	summed bool

	// sum is that of the sender with the bytes that the body has read.
	sum  hash.Hash
	body *web.CountingBody
}

// open begins anew.
func (b *layerBody) open() io.ReadCloser {
	b.close()
	s := b.s
	s.log.Sent(b.base - s.counted)
	s.counted = b.base
	var r io.Reader = bufio.NewReaderSize(s.layer.reader(b.off, b.end, func(n int64) {
		s.counted += n
		s.log.Sent(n)
	}), web.BodyBuffer)
	if !b.summed {
		b.sum = cloneHash(s.sum)
		r = io.TeeReader(r, b.sum)
	}
	b.body = &web.CountingBody{R: r}
	return b.body
}

// close waits until the body is not read any more, and returns how many bytes
// of it were.
func (b *layerBody) close() int64 {
	if b.body == nil {
		return 0
	}
	return b.body.End()
}

// cloneHash returns a copy of a SHA-2 hash, which can't fail.
func cloneHash(h hash.Hash) hash.Hash {
	c, err := h.(hash.Cloner).Clone()
	if err != nil {
		panic("oci: internal error: " + err.Error())
	}
	return c
}
