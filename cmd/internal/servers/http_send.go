package servers

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"flatimg/cmd/internal/cli"
)

// Send implements [Upload].
func (u *httpUpload) Send(ctx context.Context, src Source, log Log) error {
	u.client.retry.say = log.Say
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
		err = lasting{fmt.Errorf("the server has %d bytes of %d that were sent", size, src.Size())}
	}
	if err == nil {
		u.sent = true
		u.state.Offset = size
		log.Keep(u.state)
	}
	return u.fail("look at what has arrived", err)
}

// knowAgain makes sure that the target is what an earlier run has sent.
func (u *httpUpload) knowAgain(ctx context.Context, log Log) error {
	size, err := u.size(ctx, u.to)
	if err != nil {
		return u.fail("look at it", err)
	}
	same, err := u.resembles(ctx, size)
	if err != nil {
		return u.fail("look at it", err)
	}
	if !same {
		return exists(u.String())
	}
	data, err := dataSize(u.src)
	log.Kept(data)
	log.Say("an earlier run has sent all of it")
	return err
}

// part is the hidden file.
func (u *httpUpload) part() webAddress { return u.to.sibling(u.state.Part) }

// begin finds what an earlier run has sent, or chooses a new part.
func (u *httpUpload) begin(ctx context.Context, log Log) error {
	if u.resumed {
		size, err := u.size(ctx, u.part())
		if err != nil {
			return err
		}
		canGoOn := u.can.Ranges || u.state.Offset == u.state.Size
		if canGoOn && size == u.src.Size() && u.state.Size == size && u.state.Offset <= size {
			kept, err := dataBefore(u.src, u.state.Offset)
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
	u.state = httpState{Part: hiddenName(u.to.name()), Size: u.src.Size(), httpAbilities: u.can}
	u.gone = false
	log.Keep(u.state)
	return nil
}

// sendWhole sends the file in one request; holes are zeros.
func (u *httpUpload) sendWhole(ctx context.Context, log Log) error {
	if u.state.Offset > 0 {
		return nil // an earlier run has sent all
	}
	return u.put(ctx, u.part(), piece{0, u.src.Size()}, nil, log)
}

// sendPieces makes a file of the right size, and writes the data into it, one
// piece after the other: there are servers that write a new file each time.
func (u *httpUpload) sendPieces(ctx context.Context, log Log) error {
	size := u.src.Size()
	if size == 0 {
		return u.sendWhole(ctx, log)
	}
	if u.state.Offset == 0 {
		end := literalPut(u.part(), "\x00", contentRange(piece{size - 1, size}))
		if _, err := u.client.do(ctx, "set its size", end); err != nil {
			return err
		}
	}
	return eachPiece(u.src, u.state.Offset, u.piece, smallHole, func(p piece) error {
		if err := u.put(ctx, u.part(), p, map[string]string{"Content-Range": contentRange(p)}, log); err != nil {
			return err
		}
		u.state.Offset = p.end
		log.Keep(u.state)
		return nil
	})
}

// contentRange is the header of that name for a part of a file whose size is
// not told (RFC 9110, section 14.4).
func contentRange(p piece) string { return fmt.Sprintf("bytes %d-%d/*", p.start, p.end-1) }

// put sends a piece, and tries again what may pass.
func (u *httpUpload) put(ctx context.Context, to webAddress, p piece, header map[string]string, log Log) error {
	return u.client.retry.own().do(ctx, "send", func() error { return u.putOnce(ctx, to, p, header, log) })
}

var errEarly = errors.New("the server has answered before it had everything")

// putOnce sends a piece.
func (u *httpUpload) putOnce(ctx context.Context, to webAddress, p piece, header map[string]string, log Log) error {
	s := &sending{src: u.src, piece: p, log: log}
	r := webRequest{
		method: "PUT", to: to, body: s.next, length: p.end - p.start, limit: sizeLimit(p.end - p.start),
		header: map[string]string{"Content-Type": "application/octet-stream"},
	}
	for name, value := range header {
		r.header[name] = value
	}
	if r.length > httpPiece {
		// Who refuses it should do so before it is sent.
		r.header["Expect"] = "100-continue"
	}
	resp, err := u.client.send(ctx, r)
	if err == nil {
		drain(resp)
		if !s.complete() {
			err = passing{errEarly}
		}
	}
	if err != nil {
		s.failed()
	}
	return putError(err)
}

// putError is the error of a PUT. One at which the server fails by itself is not
// sent again: so says nginx that its disk is full, and leaves a copy each time.
func putError(err error) error {
	if !hasStatus(err, http.StatusInternalServerError) {
		return err
	}
	return lasting{&cli.Error{Err: err, Hint: "is the server's disk full? its error log says why", Code: cli.ExitServer}}
}
