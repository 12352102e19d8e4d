package rig

import (
	"net"
	"sync"
	"time"
)

// Cutter is a TCP proxy in front of a server that breaks connections. It is
// safe for concurrent use and ends with the test.
type Cutter struct {
	// Address is what clients connect to, host:port.
	Address string

	server string
	// ended is closed when the test ends; running are the goroutines.
	ended   chan struct{}
	running sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while connections are refused
	conns    map[net.Conn]struct{}
	stalled  chan struct{} // closed when a stall ends; nil while there is none
	stallAt  int64         // what up.total must reach for a stall to begin; 0: nothing
	up, down flow
	cuts     int
}

// flow is what went in one direction over all connections.
type flow struct {
	total int64
	// cuts are the counts of bytes after which all is cut, each counted from
	// the cut before it; since is what went since that.
	cuts  []int64
	since int64
}

// NewCutter starts a proxy for the server at address: host:port, or the path of
// a socket.
func NewCutter(t T, address string) *Cutter {
	t.Helper()
	c := &Cutter{server: address, ended: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	ports, err := freePorts(1)
	if err != nil {
		t.Fatalf("%v", err)
	}
	c.Address = loopback(ports[0])
	if err := c.listen(); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(c.end)
	return c
}

// CutAfter cuts all connections when clients have sent n more bytes, counted
// over all of them; then all pass again, until the next count, if there is one,
// is reached in turn. It replaces what was asked for before.
func (c *Cutter) CutAfter(n ...int64) { c.cutAfter(&c.up, n) }

// CutRepliesAfter is [Cutter.CutAfter] for what the server sends.
func (c *Cutter) CutRepliesAfter(n ...int64) { c.cutAfter(&c.down, n) }

func (c *Cutter) cutAfter(f *flow, n []int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.cuts, f.since = append([]int64(nil), n...), 0
}

// Cut cuts all connections now.
func (c *Cutter) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut()
}

// cut resets all connections. The caller holds mu.
func (c *Cutter) cut() {
	c.cuts++
	for conn := range c.conns {
		reset(conn)
	}
}

// Cuts returns how often connections were cut.
func (c *Cutter) Cuts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cuts
}

// Sent returns how many bytes clients have sent so far, and Received how many
// the server has.
func (c *Cutter) Sent() int64 { return c.count(&c.up) }

// Received returns how many bytes the server has sent so far.
func (c *Cutter) Received() int64 { return c.count(&c.down) }

func (c *Cutter) count(f *flow) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return f.total
}

// Refuse refuses new connections, or takes them again.
func (c *Cutter) Refuse(t T, refuse bool) {
	t.Helper()
	c.mu.Lock()
	listening := c.listener != nil
	if refuse && listening {
		c.listener.Close()
		c.listener = nil
	}
	c.mu.Unlock()
	if !refuse && !listening {
		if err := c.listen(); err != nil {
			t.Fatalf("%v", err)
		}
	}
}

// Stall lets nothing pass, in neither direction, while connections stay, or
// lets all pass again.
func (c *Cutter) Stall(stall bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stallAt = 0
	if stall && c.stalled == nil {
		c.stalled = make(chan struct{})
	}
	if !stall && c.stalled != nil {
		close(c.stalled)
		c.stalled = nil
	}
}

// StallAfter is [Cutter.Stall] when clients have sent n more bytes, counted over
// all connections.
func (c *Cutter) StallAfter(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stallAt = c.up.total + n
}

// Stalled says whether nothing passes.
func (c *Cutter) Stalled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stalled != nil
}

func (c *Cutter) listen() error {
	listener, err := net.Listen("tcp", c.Address)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.listener = listener
	c.mu.Unlock()
	c.running.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			c.running.Go(func() { c.connect(client) })
		}
	})
	return nil
}

// connect serves one client until both sides have ended, or one has failed.
func (c *Cutter) connect(client net.Conn) {
	defer client.Close()
	server, err := net.DialTimeout(network(c.server), c.server, time.Minute)
	if err != nil {
		reset(client)
		return
	}
	defer server.Close()
	if !c.add(client, server) {
		return
	}
	defer c.remove(client, server)
	var reply sync.WaitGroup
	reply.Go(func() { c.pump(client, server, &c.down) })
	c.pump(server, client, &c.up)
	reply.Wait()
}

func (c *Cutter) add(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.ended:
		return false
	default:
	}
	for _, conn := range conns {
		c.conns[conn] = struct{}{}
	}
	return true
}

func (c *Cutter) remove(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		delete(c.conns, conn)
	}
}

// pump copies until the source ends, which it tells the destination, or until
// a connection is cut.
func (c *Cutter) pump(dst, src net.Conn, f *flow) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		pass := c.pass(f, n)
		if _, failed := dst.Write(buf[:pass]); failed != nil {
			reset(src)
			return
		}
		if pass < n {
			c.Cut()
			return
		}
		if err != nil {
			if half, ok := dst.(interface{ CloseWrite() error }); ok {
				half.CloseWrite()
			}
			return
		}
	}
}

// pass waits while all is stalled, counts n bytes and returns how many of them
// may pass: less than n when a cut is due.
func (c *Cutter) pass(f *flow, n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.stalled != nil {
		stalled := c.stalled
		c.mu.Unlock()
		select {
		case <-stalled:
		case <-c.ended:
		}
		c.mu.Lock()
		select {
		case <-c.ended:
			return n
		default:
		}
	}
	if len(f.cuts) > 0 && f.since+int64(n) > f.cuts[0] {
		n = int(f.cuts[0] - f.since)
		f.cuts, f.since = f.cuts[1:], 0
	} else {
		f.since += int64(n)
	}
	f.total += int64(n)
	if c.stallAt > 0 && c.up.total >= c.stallAt {
		c.stalled, c.stallAt = make(chan struct{}), 0
	}
	return n
}

// reset closes a connection so that its other end sees that it broke (RST).
func reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// end closes everything and waits for the goroutines.
func (c *Cutter) end() {
	c.mu.Lock()
	close(c.ended)
	if c.listener != nil {
		c.listener.Close()
	}
	for conn := range c.conns {
		reset(conn)
	}
	c.mu.Unlock()
	c.running.Wait()
}
