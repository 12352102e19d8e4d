package webdav

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// stream is the answer with the whole of a file, read up to an offset.
type stream struct {
	resp *http.Response
	answer
	at  int64
	end context.CancelFunc
}

// readStream reads a file whose states can't be told from each other: all comes
// from one answer, in order. A Read at offset 0 begins it.
func (d *download) readStream(ctx context.Context, w io.Writer, off, length int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off == 0 {
		if err := d.beginStream(ctx); err != nil {
			return err
		}
	}
	s := d.stream
	if s == nil || s.at != off {
		return transfer.Lasting(&cli.Error{
			Err:  fmt.Errorf("can't go on at offset %d: the server does not tell whether it still has the same file", off),
			Hint: "fetch it again, from the start",
			Code: cli.ExitServer,
		})
	}
	stop := context.AfterFunc(ctx, s.end)
	defer stop()
	counted := &transfer.CountingWriter{W: w}
	err := transfer.CopyExactly(counted, s.resp.Body, length)
	s.at += counted.N
	if err == nil && (length < 0 || s.at == d.first.size) {
		err = d.confirm(ctx, s.answer)
	}
	if err != nil {
		d.dropStream()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return err
}

// beginStream asks for the whole file, in a request that outlives ctx: later
// calls read on.
func (d *download) beginStream(ctx context.Context) error {
	d.dropStream()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	defer stop()
	r := d.get(web.Piece{Start: 0, End: -1})
	delete(r.Header, "Range")
	resp, err := d.send(life, r)
	if err != nil {
		end()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	d.stream = &stream{resp: resp, end: end}
	a, err := readAnswer(resp)
	d.stream.answer = a
	if err == nil && a.size != d.first.size {
		err = d.changed()
	}
	if err == nil && a.start != 0 {
		err = transfer.Lasting(errors.New("asked for the whole file, the server sends a part"))
	}
	if err != nil {
		d.dropStream()
	}
	return err
}

// dropStream ends the answer.
func (d *download) dropStream() {
	if d.stream != nil {
		d.stream.resp.Body.Close()
		d.stream.end()
		d.stream = nil
	}
}
