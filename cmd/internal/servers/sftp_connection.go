package servers

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
)

const (
	// sftpPacket is what every server takes in one request (SFTP draft 02,
	// section 3: packets of up to 34000 bytes).
	sftpPacket = 32 << 10
	// sftpPacketOpenSSH is what OpenSSH's server takes: 256 KiB, less 1 KiB for
	// what stands around the data (its sftp-common.h).
	sftpPacketOpenSSH = 255 << 10
	// sftpInFlight is how many bytes are under way on one connection before the
	// first of them must be confirmed: as many as ssh's own window has. More
	// would wait in ssh, and leave the processor's cache until it is sent; on
	// lines with a long delay, more connections help.
	sftpInFlight = 2 << 20
)

// sftpConn is one connection: a running ssh, and the server at its other end.
type sftpConn struct {
	*sftp.Client
	ssh *sshProcess
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

// sftpConnect starts ssh with options and greets the server. The connection
// outlives ctx, so that what was sent can be removed after an interrupt.
func sftpConnect(ctx context.Context, target sshTarget, options ...string) (*sftpConn, error) {
	life, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, hangUp)
	ssh, err := target.subsystem(life, "sftp", options...)
	if err != nil {
		hangUp()
		return nil, lasting{err}
	}
	late := time.AfterFunc(sftpSilence, hangUp) // the user may be asked for a password meanwhile
	defer late.Stop()
	moved := &movement{Reader: ssh.out, WriteCloser: ssh.in}
	moved.note()
	client, err := sftp.NewClientPipe(moved, moved, sftp.UseConcurrentWrites(true))
	if err != nil {
		ssh.close()
		hangUp()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, sftpUnreachable(ssh.errs.String(), err)
	}
	c := &sftpConn{client, ssh, sftpPacket, hangUp, life, moved}
	if !stop() {
		c.close()
		return nil, context.Cause(ctx)
	}
	if c.has("limits@openssh.com") {
		c.packet = sftpPacketOpenSSH
		if err := sftp.MaxPacketUnchecked(sftpPacketOpenSSH)(client); err != nil {
			c.close()
			return nil, lasting{err}
		}
	}
	return c, nil
}

// sftpUnreachable is the error for an ssh that ended before the server greeted.
func sftpUnreachable(said string, err error) error {
	if said != "" {
		err = errors.New(said)
	}
	err = fmt.Errorf("no sftp connection: %w", err)
	if sshRefused(said) {
		return lasting{err}
	}
	return passing{err}
}

func (c *sftpConn) has(extension string) bool {
	_, ok := c.HasExtension(extension)
	return ok
}

// requests is how many of them keep the connection busy.
func (c *sftpConn) requests() int { return int(sftpInFlight / c.packet) }

// close ends the connection and waits for that.
func (c *sftpConn) close() {
	c.Client.Close()
	c.ssh.close()
	c.hangUp()
}

// isDone waits until done is closed, or ctx has ended, and says which. It hangs up
// when nothing has moved for the time of silence.
func (c *sftpConn) isDone(ctx context.Context, silence time.Duration, done chan struct{}) bool {
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

// sftpLost says whether a request failed because of the connection, so that
// nobody knows what the server made of it.
func sftpLost(err error) bool {
	return err != nil && !sftpAnswered(err) && !is[lasting](err) && !is[*cli.Error](err)
}

// sftpAnswered says whether an error is the server's answer to a request.
func sftpAnswered(err error) bool {
	for _, e := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrExist} {
		if errors.Is(err, e) {
			return true
		}
	}
	return is[*sftp.StatusError](err)
}
