package sftp

import (
	"context"
	"fmt"
	"sync"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// grace is how long a request may take after an interrupt, which can't take it
// back, and how long the removal of a part may take.
const grace = 3 * time.Second

// maxSilence is how long nothing may move on a connection while something is
// waited for. ssh only watches that the other ssh is alive, not what it runs.
const maxSilence = 10 * time.Minute

// server is an account that is reached by SFTP through the user's own ssh. It
// connects again when a connection broke. Safe for concurrent use.
type server struct {
	target ssh.Target
	retry  *transfer.Retrier
	// silence is [maxSilence], and more for a large file: to make room for it,
	// or to bring it to the disk, can take a server that long.
	silence time.Duration

	mu   sync.Mutex
	idle []*conn
}

func newServer(ctx context.Context, target ssh.Target, o servers.Options) *server {
	return &server{target: target.WithOptions(ctx, o), retry: transfer.NewRetrier(o), silence: maxSilence}
}

// expect says that a file of size bytes is sent.
func (s *server) expect(size int64) {
	s.silence += time.Duration(size/transfer.SlowestReads) * time.Second
}

// url returns the URL of a path on the server, which has no secrets.
func (s *server) url(path string) string { return s.target.URL("sftp", path) }

// connect makes the first connection, whose failure is told at once: a host or
// a name may be mistyped.
func (s *server) connect(ctx context.Context, where string) error {
	c, err := connect(ctx, s.target)
	switch {
	case ctx.Err() != nil && err != nil:
		return err
	case err != nil:
		return &cli.Error{
			Err:  fmt.Errorf("%s: %w", where, err),
			Hint: fmt.Sprintf("try: %s; --ssh-command chooses another ssh or its options", s.target),
			Code: cli.ExitServer,
		}
	}
	s.give(c)
	return nil
}

// take returns a connection for the caller alone: an idle one, or a new one
// that ssh makes with options.
func (s *server) take(ctx context.Context, options ...string) (*conn, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		c := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return c, nil
	}
	s.mu.Unlock()
	return connect(ctx, s.target, options...)
}

// give returns a connection that works.
func (s *server) give(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, c)
}

// close ends all connections, of which none is taken.
func (s *server) close() {
	for _, c := range s.idle {
		c.close()
	}
	s.idle = nil
}

// try calls f with a connection. An error says whether trying again may help;
// after a lost connection it has what ssh said. Requests that are under way at
// the end of ctx get some time before the connection is cut.
func (s *server) try(ctx context.Context, f func(c *conn) error) error {
	c, err := s.take(ctx)
	if err != nil {
		return err
	}
	c.moved.note()
	silence := s.silence
	done := make(chan struct{})
	go func() {
		if c.isDone(ctx, silence, done) {
			return
		}
		select {
		case <-done:
		case <-time.After(grace):
			c.hangUp()
		}
	}()
	err = f(c)
	close(done)
	if isLost(err) && ctx.Err() == nil {
		if c.moved.silent.Load() {
			err = fmt.Errorf("no answer for %v: %w", silence, err)
		}
		// ssh ends soon after the connection; its last words say why.
		if said := c.ssh.LastWords(); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
		err = transfer.Passing(err)
	}
	if c.ssh.HasEnded() || transfer.IsPassing(err) {
		c.hangUp()
		c.close()
	} else {
		s.give(c)
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case transfer.IsPassing(err):
		return err
	}
	return transfer.Lasting(err)
}

// do is try, again while that may help. An error says of which file it is, and
// what was attempted.
func (s *server) do(ctx context.Context, where, what string, f func(c *conn) error) error {
	err := s.retry.Do(ctx, what, func() error { return s.try(ctx, f) })
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return transfer.ServerError(where, what, err)
}
