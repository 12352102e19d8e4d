package servers

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// unflushed is the error after which all that was sent since the last flush has
// to be sent again (docs/images.md, "General errors").
type unflushed struct{ error }

func (u unflushed) Unwrap() error { return u.error }

// pass sends all at and after the state's offset, and flushes.
func (u *imageioUpload) pass(ctx context.Context, log Log) error {
	from := u.state.Offset
	counted := &passLog{Log: log}
	u.arrived.Store(from)
	u.lost.Store(false)
	err := u.sendFrom(ctx, from, counted)
	if err == nil {
		u.arrived.Store(u.src.Size())
		err = u.flush(ctx, log)
	}
	if err != nil {
		// What was flushed stays sent.
		before, err1 := dataBefore(u.src, from)
		after, err2 := dataBefore(u.src, u.state.Offset)
		if err1 == nil && err2 == nil {
			log.Sent(after - before - counted.sent.Load())
		}
	}
	return err
}

// passLog counts what is sent in a pass.
type passLog struct {
	Log
	sent atomic.Int64
}

func (l *passLog) Sent(n int64) {
	l.sent.Add(n)
	l.Log.Sent(n)
}

// imageioWork is what one request does: writing data, or zeros.
type imageioWork struct {
	piece
	zero bool
}

// eachWork calls f for what makes the bytes at and after from, up to the end of
// a disk of size bytes, those of src, in order. The disk may hold old data.
func eachWork(src Source, from, size int64, f func(imageioWork) error) error {
	at := from
	zero := func(end int64) error {
		for ; at < end; at = min(end, at+imageioZero) {
			if err := f(imageioWork{piece{at, min(end, at+imageioZero)}, true}); err != nil {
				return err
			}
		}
		return nil
	}
	err := eachPiece(src, from, imageioPiece, smallHole, func(p piece) error {
		if err := zero(p.start); err != nil {
			return err
		}
		at = p.end
		return f(imageioWork{p, false})
	})
	if err != nil {
		return err
	}
	return zero(size)
}

// sendFrom does all work at and after from. After an answer that tells a loss it
// begins no more, and waits for what is under way: a request that was given up
// could fail, and lose what has been sent again meanwhile, without a word.
func (u *imageioUpload) sendFrom(ctx context.Context, from int64, log Log) error {
	type begun struct {
		imageioWork
		*Pending
	}
	group, ctx := errgroup.WithContext(ctx)
	more, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work := make(chan begun)
	f := &Front{Advance: u.arrived.Store}
	end := u.src.Size()
	if u.can.has("zero") {
		end = max(end, u.size)
	}
	group.Go(func() error {
		defer close(work)
		err := eachWork(u.src, from, end, func(w imageioWork) error {
			select {
			case work <- begun{w, f.Begin(min(w.end, u.src.Size()))}:
				return nil
			case <-more.Done():
				return context.Cause(more)
			}
		})
		if is[unflushed](err) {
			return nil // told below
		}
		return err
	})
	for range u.workers {
		group.Go(func() error {
			for w := range work {
				err := u.do(ctx, w.imageioWork, log)
				if err == nil {
					f.Arrive(w.Pending)
					err = u.flushSome(ctx, log)
				}
				if is[unflushed](err) {
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
	if lost := context.Cause(more); is[unflushed](lost) {
		return lost
	}
	return err
}

// do makes the request for w.
func (u *imageioUpload) do(ctx context.Context, w imageioWork, log Log) error {
	if w.zero && u.can.has("zero") {
		return u.retried(ctx, func() error {
			return u.patch(ctx, map[string]any{"op": "zero", "offset": w.start, "size": w.end - w.start, "flush": false})
		})
	}
	to := u.at
	if u.can.has("flush") {
		to = to.query("flush=n")
	}
	return u.retried(ctx, func() error {
		s := &sending{src: u.src, piece: w.piece, log: log}
		resp, err := u.client.send(ctx, webRequest{
			method: "PUT", to: to, body: s.next, length: w.end - w.start, limit: answerTimeout,
			header: map[string]string{"Content-Type": "application/octet-stream", "Content-Range": contentRange(w.piece)},
		})
		if err == nil {
			drain(resp)
			if !s.complete() {
				err = passing{errEarly}
			}
		}
		if err != nil {
			s.failed()
		}
		return err
	})
}

// retried tries again what may pass by itself.
func (u *imageioUpload) retried(ctx context.Context, try func() error) error {
	defer u.begun()()
	var lost error
	err := u.client.retry.own().do(ctx, "send", func() error {
		err := try()
		if hasStatus(err, http.StatusInternalServerError) {
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
func (u *imageioUpload) begun() (ended func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.underWay.Add(1)
	return u.underWay.Done
}

// hasLost waits for all requests that have begun by now, and says whether one
// has been answered that what was not flushed is lost.
func (u *imageioUpload) hasLost() bool {
	u.mu.Lock()
	begun := u.underWay
	u.underWay = new(sync.WaitGroup)
	u.mu.Unlock()
	begun.Wait()
	return u.lost.Load()
}

// patch makes a request that carries no data.
func (u *imageioUpload) patch(ctx context.Context, message map[string]any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return lasting{err}
	}
	resp, err := u.client.send(ctx, webRequest{
		method: "PATCH", to: u.at, limit: 2 * answerTimeout, length: int64(len(text)),
		body:   func() io.ReadCloser { return io.NopCloser(strings.NewReader(string(text))) },
		header: map[string]string{"Content-Type": "application/json"},
	})
	if err == nil {
		drain(resp)
	}
	return err
}

// flushSome flushes when much has arrived since the last time; the other workers
// go on meanwhile.
func (u *imageioUpload) flushSome(ctx context.Context, log Log) error {
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
func (u *imageioUpload) flush(ctx context.Context, log Log) error {
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
