package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// packet is what every server takes in one request (SFTP draft 02, section
	// 3: packets of up to 34000 bytes).
	packet = 32 << 10
	// packetOpenSSH is what OpenSSH's server takes: 256 KiB, less 1 KiB for
	// what stands around the data (its sftp-common.h).
	packetOpenSSH = 255 << 10
	// inFlight is how many bytes are under way on one connection before the
	// first of them must be confirmed: as many as ssh's own window has. More
	// would wait in ssh, and leave the processor's cache until it is sent; on
	// lines with a long delay, more connections help.
	inFlight = 2 << 20
)

// conn is one connection: a running ssh, and the server at its other end.
type conn struct {
	*sftp.Client
	ssh *ssh.Process
	// packet is how many bytes of data a request has.
	packet int64
	// hangUp ends the connection at once, and life with it.
	hangUp context.CancelFunc
	life   context.Context
	// moved is when something came last, or left.
	moved *movement
}

// movement is a connection's ends, which note when something moves, in
// nanoseconds since 1970. Safe for concurrent use.
type movement struct {
	io.Reader
	io.WriteCloser
	last atomic.Int64
	// silent is set when it was hung up on since nothing moved. What is closed
	// after that may still move.
	silent atomic.Bool
}

func (m *movement) note() { m.last.Store(time.Now().UnixNano()) }

// since returns for how long nothing has moved.
func (m *movement) since() time.Duration { return time.Duration(time.Now().UnixNano() - m.last.Load()) }

func (m *movement) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if n > 0 {
		m.note()
	}
	return n, err
}

func (m *movement) Write(p []byte) (int, error) {
	n, err := m.WriteCloser.Write(p)
	if n > 0 {
		m.note()
	}
	return n, err
}

// connect starts ssh with options and greets the server. The connection
// outlives ctx, so that what was sent can be removed after an interrupt.
func connect(ctx context.Context, target ssh.Target, options ...string) (*conn, error) {
	life, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, hangUp)
	process, err := target.Subsystem(life, "sftp", options...)
	if err != nil {
		hangUp()
		return nil, transfer.Lasting(err)
	}
	late := time.AfterFunc(maxSilence, hangUp) // the user may be asked for a password meanwhile
	defer late.Stop()
	moved := &movement{Reader: process.Out, WriteCloser: process.In}
	moved.note()
	client, err := sftp.NewClientPipe(moved, moved, sftp.UseConcurrentWrites(true))
	if err != nil {
		process.Close()
		hangUp()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, unreachable(process.Errs.String(), err)
	}
	c := &conn{client, process, packet, hangUp, life, moved}
	if !stop() {
		c.close()
		return nil, context.Cause(ctx)
	}
	if c.has("limits@openssh.com") {
		c.packet = packetOpenSSH
		if err := sftp.MaxPacketUnchecked(packetOpenSSH)(client); err != nil {
			c.close()
			return nil, transfer.Lasting(err)
		}
	}
	return c, nil
}

// unreachable is the error for an ssh that ended before the server greeted.
func unreachable(said string, err error) error {
	if said != "" {
		err = errors.New(said)
	}
	err = fmt.Errorf("no sftp connection: %w", err)
	if ssh.Refused(said) {
		return transfer.Lasting(err)
	}
	return transfer.Passing(err)
}

func (c *conn) has(extension string) bool {
	_, ok := c.HasExtension(extension)
	return ok
}

// requests is how many of them keep the connection busy.
func (c *conn) requests() int { return int(inFlight / c.packet) }

// close ends the connection and waits for that.
func (c *conn) close() {
	c.Client.Close()
	c.ssh.Close()
	c.hangUp()
}

// isDone waits until done is closed, or ctx has ended, and says which. It hangs
// up when nothing has moved for the time of silence.
func (c *conn) isDone(ctx context.Context, silence time.Duration, done chan struct{}) bool {
	tick := time.NewTicker(max(silence/8, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-done:
			return true
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
		if c.moved.since() > silence {
			c.moved.silent.Store(true)
			c.hangUp()
		}
	}
}

// isLost says whether a request failed because of the connection, so that
// nobody knows what the server made of it.
func isLost(err error) bool {
	return err != nil && !answered(err) && !transfer.IsLasting(err) && !transfer.Is[*cli.Error](err)
}

// answered says whether an error is the server's answer to a request.
func answered(err error) bool {
	for _, e := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return transfer.Is[*sftp.StatusError](err)
}
