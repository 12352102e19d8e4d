package webdav

import (
	"context"
	"fmt"
	"net/http"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// Send implements [servers.Upload].
func (u *upload) Send(ctx context.Context, src servers.Source, log servers.Log) error {
	u.client.Retry.Say = log.Say
	u.src = src
	switch {
	case u.direct:
		return u.fail("send", u.sendDirect(ctx, log))
	case u.published:
		return u.knowAgain(ctx, log)
	}
	if err := u.begin(ctx, log); err != nil {
		return u.fail("begin", err)
	}
	send := u.sendWhole
	if u.can.Ranges {
		send = u.sendPieces
	}
	if err := send(ctx, log); err != nil {
		return u.fail("send", err)
	}
	size, err := u.size(ctx, u.part())
	if err == nil && size != src.Size() {
		err = transfer.Lasting(fmt.Errorf("the server has %d bytes of %d that were sent", size, src.Size()))
	}
	if err == nil {
		u.sent = true
		u.state.Offset = size
		log.Keep(u.state)
	}
	return u.fail("look at what has arrived", err)
}

// knowAgain makes sure that the target is what an earlier run has sent.
func (u *upload) knowAgain(ctx context.Context, log servers.Log) error {
	size, err := u.size(ctx, u.to)
	if err != nil {
		return u.fail("look at it", err)
	}
	same, err := u.resembles(ctx, size)
	if err != nil {
		return u.fail("look at it", err)
	}
	if !same {
		return transfer.Exists(u.String())
	}
	data, err := transfer.DataSize(u.src)
	log.Kept(data)
	log.Say("an earlier run has sent all of it")
	return err
}

// part is the hidden file.
func (u *upload) part() web.Address { return u.to.Sibling(u.state.Part) }

// begin finds what an earlier run has sent, or chooses a new part.
func (u *upload) begin(ctx context.Context, log servers.Log) error {
	if u.resumed {
		size, err := u.size(ctx, u.part())
		if err != nil {
			return err
		}
		canGoOn := u.can.Ranges || u.state.Offset == u.state.Size
		if canGoOn && size == u.src.Size() && u.state.Size == size && u.state.Offset <= size {
			kept, err := transfer.DataBefore(u.src, u.state.Offset)
			if err != nil {
				return err
			}
			log.Kept(kept)
			return nil
		}
		switch {
		case !canGoOn:
			log.Say("this server can't go on with a partial file: beginning anew")
		default:
			log.Say("what an earlier run has sent is not there any more: beginning anew")
		}
		if err := u.remove(ctx); err != nil {
			log.Say("%v", err)
		}
	}
	u.state = uploadState{Part: transfer.HiddenName(u.to.Name()), Size: u.src.Size(), abilities: u.can}
	u.gone = false
	log.Keep(u.state)
	return nil
}

// sendWhole sends the file in one request; holes are zeros.
func (u *upload) sendWhole(ctx context.Context, log servers.Log) error {
	if u.state.Offset > 0 {
		return nil // an earlier run has sent all
	}
	return u.put(ctx, u.part(), web.Piece{Start: 0, End: u.src.Size()}, nil, log)
}

// sendPieces makes a file of the right size, and writes the data into it, one
// piece after the other: there are servers that write a new file each time.
func (u *upload) sendPieces(ctx context.Context, log servers.Log) error {
	size := u.src.Size()
	if size == 0 {
		return u.sendWhole(ctx, log)
	}
	if u.state.Offset == 0 {
		end := literalPut(u.part(), "\x00", web.ContentRange(web.Piece{Start: size - 1, End: size}))
		if _, err := u.client.Do(ctx, "set its size", end); err != nil {
			return err
		}
	}
	return web.EachPiece(u.src, u.state.Offset, u.piece, web.SmallHole, func(p web.Piece) error {
		if err := u.put(ctx, u.part(), p, map[string]string{"Content-Range": web.ContentRange(p)}, log); err != nil {
			return err
		}
		u.state.Offset = p.End
		log.Keep(u.state)
		return nil
	})
}

// put sends a piece, and tries again what may pass.
func (u *upload) put(ctx context.Context, to web.Address, p web.Piece, header map[string]string, log servers.Log) error {
	return u.client.Retry.Own().Do(ctx, "send", func() error { return u.putOnce(ctx, to, p, header, log) })
}

// putOnce sends a piece.
func (u *upload) putOnce(ctx context.Context, to web.Address, p web.Piece, header map[string]string, log servers.Log) error {
	s := &web.Sending{Src: u.src, Piece: p, Log: log}
	r := web.Request{
		Method: "PUT", To: to, Body: s.Next, Length: p.End - p.Start, Limit: web.SizeLimit(p.End - p.Start),
		Header: map[string]string{"Content-Type": "application/octet-stream"},
	}
	for name, value := range header {
		r.Header[name] = value
	}
	if r.Length > pieceSize {
		// Who refuses it should do so before it is sent.
		r.Header["Expect"] = "100-continue"
	}
	resp, err := u.client.Send(ctx, r)
	if err == nil {
		web.Drain(resp)
		if !s.Complete() {
			err = transfer.Passing(web.ErrEarly)
		}
	}
	if err != nil {
		s.Failed()
	}
	return putError(err)
}

// putError is the error of a PUT. One at which the server fails by itself is not
// sent again: so says nginx that its disk is full, and leaves a copy each time.
func putError(err error) error {
	if !web.HasStatus(err, http.StatusInternalServerError) {
		return err
	}
	return transfer.Lasting(&cli.Error{Err: err, Hint: "is the server's disk full? its error log says why", Code: cli.ExitServer})
}
