package web

import (
	"context"
	"net"
	"time"
)

// IdleTimeout is how long a read or a write on a connection may take: a line
// that carries nothing for that long is broken.
const IdleTimeout = 2 * time.Minute

// idleDialer makes connections on which nothing waits for ever.
type idleDialer struct {
	*net.Dialer
	idle time.Duration
}

func (d idleDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &idleConn{c, d.idle}, nil
}

// idleConn bounds each write. Reads are bounded by who waits for an answer,
// since an unused connection is read all the time.
type idleConn struct {
	net.Conn
	idle time.Duration
}

func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
