package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Options say how an export is used. The zero value is one connection without
// BlockStatus.
type Options struct {
	// Connections is the most that are made, where the server says that several
	// see the same data (section "Transmission flags", NBD_FLAG_CAN_MULTI_CONN).
	// There may be fewer: a server can limit them. Default: 1.
	Connections int
	// InFlight is how many requests are sent on one connection before the first
	// is answered. Each may hold as many bytes in the server as it carries.
	// Default: 16.
	InFlight int
	// Timeout is how long nothing may move on a connection while requests are
	// in flight; ten times that for a flush. Default: two minutes.
	Timeout time.Duration
	// Status asks for what [Client.BlockStatus] tells.
	Status bool
	// TLS has authorities and certificates for addresses with TLS set; those in
	// the address's own folder come before them. nil: the system's authorities.
	TLS *tls.Config
}

const (
	defaultInFlight = 16
	defaultTimeout  = 2 * time.Minute
	// handshakeTimeout is how long a server may take until an export can be
	// used, all included.
	handshakeTimeout = 30 * time.Second
	// joinTimeout is the same for connections after the first, which can be
	// done without: qemu-nbd lets those beyond its limit wait.
	joinTimeout = 3 * time.Second
)

func (o Options) withDefaults() Options {
	if o.Connections <= 0 {
		o.Connections = 1
	}
	if o.InFlight <= 0 {
		o.InFlight = defaultInFlight
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	return o
}

// Dial connects to the export at a. It ends with ctx, and after 30 seconds; the
// client lives on when ctx ends.
//
// Errors are [ErrNotNBD], [ErrOldstyle], [ErrTLSRequired] or [ErrTLSRefused], or
// of type [*ConnectionError], [*TLSError], [*ExportError], [*OptionError] or
// [*ProtocolError], wrapped with the address.
func Dial(ctx context.Context, a Address, o Options) (*Client, error) {
	o = o.withDefaults()
	var config *tls.Config
	if a.TLS {
		var err error
		if config, err = a.tlsConfig(o.TLS); err != nil {
			return nil, err
		}
	}
	d := dialer{a, config, o}
	first, e, err := d.dial(ctx, handshakeTimeout)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	c := &Client{export: e, conns: []*conn{first}, edges: make(chan struct{}, 1)}
	c.zeroes.Store(maxZeroes)
	if c.Flags().MultiConn {
		c.conns = append(c.conns, d.more(ctx, e, o.Connections-1)...)
	}
	if err := ctx.Err(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// dialer makes the connections of one client.
type dialer struct {
	address Address
	config  *tls.Config // nil: no TLS
	options Options
}

// dial makes one connection within limit.
func (d dialer) dial(ctx context.Context, limit time.Duration) (*conn, export, error) {
	late := &ConnectionError{fmt.Errorf("no answer within %v", limit)}
	limited, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	var dial net.Dialer
	raw, err := dial.DialContext(limited, d.address.Network, d.address.peer())
	if err != nil {
		return nil, export{}, handshakeError(limited, err)
	}
	stop := context.AfterFunc(limited, func() { raw.Close() })
	s := &session{raw: raw, conn: raw, name: d.address.Export}
	e, err := s.negotiate(limited, d.config, d.options.Status)
	if err == nil && !stop() {
		err = limited.Err()
	}
	if err != nil {
		stop()
		raw.Close()
		return nil, export{}, handshakeError(limited, err)
	}
	return newConn(s, e, d.options), e, nil
}

// more makes up to n connections like the first, and returns those that it got.
func (d dialer) more(ctx context.Context, first export, n int) []*conn {
	var mu sync.Mutex
	var conns []*conn // protected by mu
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			c, e, err := d.dial(ctx, joinTimeout)
			if err != nil {
				return
			}
			if e.size != first.size || e.flags != first.flags || e.hasContext != first.hasContext || e.blocks != first.blocks {
				c.close() // the export was changed or replaced meanwhile
				return
			}
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, c)
		})
	}
	group.Wait()
	return conns
}

// handshakeError sorts an error of the time before the transmission phase.
func handshakeError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if isTLS(err) {
		return &TLSError{err}
	}
	if _, network := errors.AsType[net.Error](err); network {
		return &ConnectionError{err}
	}
	if _, protocol := errors.AsType[*ProtocolError](err); !protocol && isEnd(err) {
		return &ConnectionError{fmt.Errorf("the server closed it during the handshake: %w", err)}
	}
	return err
}
