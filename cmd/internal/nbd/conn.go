package nbd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// receiveBuffer holds headers of many replies; larger data goes past it.
	receiveBuffer = 64 << 10
	// flushPatience is how many times the timeout a flush may take: the server
	// may have to write all that was sent before.
	flushPatience = 10
	// closeGrace is how long a server may take to end a connection.
	closeGrace = 2 * time.Second
)

// errAbandoned breaks a connection. It does not wrap the context's error: those
// who share the connection were not cancelled.
var errAbandoned = errors.New("given up with a request that was cancelled")

// conn is a connection in the transmission phase. Two goroutines end with it:
// receive and watch.
type conn struct {
	raw     net.Conn // the socket
	stream  net.Conn // raw, or TLS on it
	timeout time.Duration
	// slots has an element for each request in flight, sending one while a
	// request is sent.
	slots, sending chan struct{}
	// progress is when bytes moved last, in nanoseconds since began.
	began    time.Time
	progress atomic.Int64
	// broken is closed when err is set, ended when both goroutines have ended.
	broken chan struct{}
	ended  sync.WaitGroup

	mu      sync.Mutex
	pending map[uint64]*request // protected by mu
	handle  uint64              // of the last request; protected by mu
	err     error               // why it is broken; protected by mu
}

// newConn begins the transmission phase of s.
func newConn(s *session, e export, o Options) *conn {
	c := &conn{
		raw:     s.raw,
		stream:  s.conn,
		timeout: o.Timeout,
		began:   time.Now(),
		slots:   make(chan struct{}, o.InFlight),
		sending: make(chan struct{}, 1),
		broken:  make(chan struct{}),
		pending: make(map[uint64]*request),
	}
	d := &decoder{
		r:          bufio.NewReaderSize(progressReader{c}, receiveBuffer),
		structured: e.structured,
		context:    e.context,
		lookup:     c.lookup,
	}
	c.ended.Go(func() { c.receive(d) })
	c.ended.Go(c.watch)
	return c
}

// progressReader notes that the server sends.
type progressReader struct{ c *conn }

func (r progressReader) Read(p []byte) (int, error) {
	n, err := r.c.stream.Read(p)
	r.c.moved()
	return n, err
}

func (c *conn) moved() { c.progress.Store(int64(time.Since(c.began))) }

// do sends r, with its payload if there is one, and waits for the reply.
func (c *conn) do(ctx context.Context, r *request, p payload) error {
	if err := c.enter(ctx, c.slots); err != nil {
		return err
	}
	defer func() { <-c.slots }()
	if err := c.enter(ctx, c.sending); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.fail(&ConnectionError{errAbandoned}) })
	defer stop()
	err := c.send(r, p)
	<-c.sending
	// Also after an error: the receiver may be using the memory of r.
	<-r.done
	if err == nil || isServerError(r.err) {
		err = r.err
	}
	if ctx.Err() != nil && IsConnectionError(err) {
		return ctx.Err()
	}
	return err
}

func isServerError(err error) bool {
	_, ok := errors.AsType[*Error](err)
	return ok
}

// enter takes a place in a queue.
func (c *conn) enter(ctx context.Context, queue chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case queue <- struct{}{}:
		return nil
	case <-c.broken:
		return c.why()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send registers and sends r; its caller holds the place in sending. After an
// error the connection is broken, but an error of the payload's source is
// returned as such.
func (c *conn) send(r *request, p payload) error {
	handle, err := c.register(r)
	if err != nil {
		close(r.done)
		return err
	}
	if p == nil {
		_, err = c.stream.Write(r.header(handle))
		c.moved()
	} else {
		err = p.send(c, r.header(handle))
	}
	if err == nil {
		return nil
	}
	if source, ok := errors.AsType[*sourceError](err); ok {
		// Not a ConnectionError: to connect again would not help the file.
		c.fail(fmt.Errorf("NBD connection: given up in the middle of a request: %w", source.err))
		return source.err
	}
	c.fail(&ConnectionError{closedByPeer(err)})
	return c.why()
}

// register makes r known to the receiver.
func (c *conn) register(r *request) (handle uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.moved()
	c.handle++
	c.pending[c.handle] = r
	return c.handle, nil
}

func (c *conn) lookup(handle uint64) *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending[handle]
}

// receive gives replies to those who wait for them, until the connection breaks.
func (c *conn) receive(d *decoder) {
	for {
		handle, r, err := d.next()
		if err != nil {
			c.fail(received(err))
			break
		}
		if r != nil {
			c.mu.Lock()
			delete(c.pending, handle)
			c.mu.Unlock()
			close(r.done)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.pending {
		if r.err == nil {
			r.err = c.err
		}
		close(r.done)
	}
	clear(c.pending)
}

// received returns the error of a connection from which err was read.
func received(err error) error {
	if _, ok := errors.AsType[*ProtocolError](err); ok {
		return err
	}
	return &ConnectionError{closedByPeer(err)}
}

// watch breaks a connection on which nothing moves while somebody waits.
func (c *conn) watch() {
	tick := time.NewTicker(max(c.timeout/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-c.broken:
			return
		case <-tick.C:
		}
		if limit, waiting := c.patience(); waiting && int64(time.Since(c.began))-c.progress.Load() > int64(limit) {
			c.fail(&ConnectionError{fmt.Errorf("no answer for %v", limit)})
		}
	}
}

// patience is how long nothing may move. Nobody waits when no request is in
// flight.
func (c *conn) patience() (limit time.Duration, waiting bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit = c.timeout
	for _, r := range c.pending {
		if r.command == cmdFlush {
			limit = c.timeout * flushPatience
		}
	}
	return limit, len(c.pending) > 0
}

// fail breaks the connection. The first reason stays. The receiver tells those
// who wait.
func (c *conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.broken)
	// Not the TLS connection, which would wait to say goodbye.
	c.raw.Close()
}

// why returns the reason why it is broken, or nil.
func (c *conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// close says goodbye (section "Terminating the transmission phase"), lets the
// server end the connection, and waits for the goroutines.
func (c *conn) close() {
	timer := time.AfterFunc(closeGrace, func() { c.fail(&ConnectionError{net.ErrClosed}) })
	defer timer.Stop()
	select {
	case c.sending <- struct{}{}:
		// The place is kept: nothing may follow.
		c.stream.Write(newRequest(cmdDisc, 0, 0).header(0))
		if t, ok := c.stream.(*tls.Conn); ok {
			t.CloseWrite()
		}
	case <-c.broken:
	}
	c.ended.Wait()
}
