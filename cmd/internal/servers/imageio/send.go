package imageio

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// unflushed is the error after which all that was sent since the last flush has
// to be sent again (docs/images.md, "General errors").
type unflushed struct{ error }

func (u unflushed) Unwrap() error { return u.error }

// pass sends all at and after the state's offset, and flushes.
func (u *upload) pass(ctx context.Context, log servers.Log) error {
	from := u.state.Offset
	counted := &transfer.CountingLog{Log: log}
	u.arrived.Store(from)
	u.lost.Store(false)
	err := u.sendFrom(ctx, from, counted)
	if err == nil {
		u.arrived.Store(u.src.Size())
		err = u.flush(ctx, log)
	}
	if err != nil {
		// What was flushed stays sent.
		before, err1 := transfer.DataBefore(u.src, from)
		after, err2 := transfer.DataBefore(u.src, u.state.Offset)
		if err1 == nil && err2 == nil {
			log.Sent(after - before - counted.Total.Load())
		}
	}
	return err
}

// task is what one request does: writing data, or zeros.
type task struct {
	web.Piece
	zero bool
}

// eachTask calls f for what makes the bytes at and after from, up to the end of
// a disk of size bytes, those of src, in order. The disk may hold old data.
func eachTask(src servers.Source, from, size int64, f func(task) error) error {
	at := from
	zero := func(end int64) error {
		for ; at < end; at = min(end, at+zeroSize) {
			if err := f(task{web.Piece{Start: at, End: min(end, at+zeroSize)}, true}); err != nil {
				return err
			}
		}
		return nil
	}
	err := web.EachPiece(src, from, pieceSize, web.SmallHole, func(p web.Piece) error {
		if err := zero(p.Start); err != nil {
			return err
		}
		at = p.End
		return f(task{p, false})
	})
	if err != nil {
		return err
	}
	return zero(size)
}

// sendFrom does all tasks at and after from. After an answer that tells a loss it
// begins no more, and waits for what is under way: a request that was given up
// could fail, and lose what has been sent again meanwhile, without a word.
func (u *upload) sendFrom(ctx context.Context, from int64, log servers.Log) error {
	type begun struct {
		task
		*transfer.Pending
	}
	group, ctx := errgroup.WithContext(ctx)
	more, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	tasks := make(chan begun)
	f := &transfer.Front{Advance: u.arrived.Store}
	end := u.src.Size()
	if u.can.has("zero") {
		end = max(end, u.size)
	}
	group.Go(func() error {
		defer close(tasks)
		err := eachTask(u.src, from, end, func(t task) error {
			select {
			case tasks <- begun{t, f.Begin(min(t.End, u.src.Size()))}:
				return nil
			case <-more.Done():
				return context.Cause(more)
			}
		})
		if transfer.Is[unflushed](err) {
			return nil // told below
		}
		return err
	})
	for range u.workers {
		group.Go(func() error {
			for t := range tasks {
				err := u.do(ctx, t.task, log)
				if err == nil {
					f.Arrive(t.Pending)
					err = u.flushSome(ctx, log)
				}
				if transfer.Is[unflushed](err) {
					stop(err)
					return nil
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	if lost := context.Cause(more); transfer.Is[unflushed](lost) {
		return lost
	}
	return err
}

// do makes the request of a task.
func (u *upload) do(ctx context.Context, t task, log servers.Log) error {
	if t.zero && u.can.has("zero") {
		return u.retried(ctx, func() error {
			return u.patch(ctx, map[string]any{"op": "zero", "offset": t.Start, "size": t.End - t.Start, "flush": false})
		})
	}
	to := u.at
	if u.can.has("flush") {
		to = to.Query("flush=n")
	}
	return u.retried(ctx, func() error {
		s := &web.Sending{Src: u.src, Piece: t.Piece, Log: log}
		resp, err := u.client.Send(ctx, web.Request{
			Method: "PUT", To: to, Body: s.Next, Length: t.End - t.Start, Limit: web.AnswerTimeout,
			Header: map[string]string{"Content-Type": "application/octet-stream", "Content-Range": web.ContentRange(t.Piece)},
		})
		if err == nil {
			web.Drain(resp)
			if !s.Complete() {
				err = transfer.Passing(web.ErrEarly)
			}
		}
		if err != nil {
			s.Failed()
		}
		return err
	})
}

// retried tries again what may pass by itself.
func (u *upload) retried(ctx context.Context, try func() error) error {
	defer u.begun()()
	var lost error
	err := u.client.Retry.Own().Do(ctx, "send", func() error {
		err := try()
		if web.HasStatus(err, http.StatusInternalServerError) {
			lost, err = err, nil
		}
		return err
	})
	if lost != nil {
		u.lost.Store(true)
		return unflushed{lost}
	}
	return err
}

// begun says that a request has begun; what it returns, that it has ended.
func (u *upload) begun() (ended func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.underWay.Add(1)
	return u.underWay.Done
}

// hasLost waits for all requests that have begun by now, and says whether one
// has been answered that what was not flushed is lost.
func (u *upload) hasLost() bool {
	u.mu.Lock()
	begun := u.underWay
	u.underWay = new(sync.WaitGroup)
	u.mu.Unlock()
	begun.Wait()
	return u.lost.Load()
}

// patch makes a request that carries no data.
func (u *upload) patch(ctx context.Context, message map[string]any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return transfer.Lasting(err)
	}
	resp, err := u.client.Send(ctx, web.Request{
		Method: "PATCH", To: u.at, Limit: 2 * web.AnswerTimeout, Length: int64(len(text)),
		Body:   func() io.ReadCloser { return io.NopCloser(strings.NewReader(string(text))) },
		Header: map[string]string{"Content-Type": "application/json"},
	})
	if err == nil {
		web.Drain(resp)
	}
	return err
}

// flushSome flushes when much has arrived since the last time; the other workers
// go on meanwhile.
func (u *upload) flushSome(ctx context.Context, log servers.Log) error {
	if !u.flushing.TryLock() {
		return nil
	}
	defer u.flushing.Unlock()
	if u.arrived.Load()-u.state.Offset < u.flushEvery {
		return nil
	}
	return u.flush(ctx, log)
}

// flush makes durable what has arrived, and notes it.
func (u *upload) flush(ctx context.Context, log servers.Log) error {
	off := u.arrived.Load()
	// A server without the feature flushes at each request.
	if u.can.has("flush") {
		if err := u.retried(ctx, func() error { return u.patch(ctx, map[string]any{"op": "flush"}) }); err != nil {
			return err
		}
		// It may have been lost before this flush, which knows nothing of it.
		if u.hasLost() {
			return nil
		}
	}
	u.state.Offset = off
	log.Keep(u.state)
	return nil
}
