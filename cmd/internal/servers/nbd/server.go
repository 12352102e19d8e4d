package nbd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/nbd"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/transfer"
)

const (
	// defaultConnections is how many connections are made where the server
	// allows several: more than processors do not help on a fast line.
	defaultConnections = 4
	// chunkSize in bytes is what every server takes in one request, and enough
	// that the requests cost little.
	chunkSize = 1 << 20
	// inFlight is the number of chunks under way, over all connections.
	inFlight = 16
)

// server is an export that is connected to when it is needed, and again after
// the connection broke. Safe for concurrent use.
type server struct {
	address nbd.Address
	options nbd.Options

	mu     sync.Mutex
	client *nbd.Client // nil: not connected
}

// openServer connects to the export that a URL names. status asks for its holes.
func openServer(ctx context.Context, dest string, o servers.Options, status bool) (*server, error) {
	address, err := nbd.Parse(dest)
	if err != nil {
		return nil, transfer.Usage(fmt.Errorf("%s: %w", transfer.Redacted(dest), err), "write nbd://host[:port]/export, nbds:// with TLS, or nbd+unix:///export?socket=PATH")
	}
	tls, err := transfer.TLSConfig(o)
	if err != nil {
		return nil, err
	}
	connections := o.Connections
	if connections == 0 {
		connections = defaultConnections
	}
	s := &server{address: address, options: nbd.Options{Connections: connections, Status: status, TLS: tls}}
	r := transfer.NewRetrier(o)
	err = r.Do(ctx, "connect", func() error {
		_, err := s.connected(ctx)
		return err
	})
	return s, err
}

func (s *server) String() string { return s.address.String() }

// connected returns the client, after connecting where there is none.
func (s *server) connected(ctx context.Context) (*nbd.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	c, err := nbd.Dial(ctx, s.address, s.options)
	if err != nil {
		return nil, s.fail(ctx, "connect", err)
	}
	s.client = c
	return c, nil
}

// broke forgets a client whose connection broke.
func (s *server) broke(c *nbd.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == c {
		s.client.Close()
		s.client = nil
	}
}

func (s *server) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		return nil
	}
	return s.client.Close()
}

// failed says what an error was about, and forgets a client that broke.
func (s *server) failed(ctx context.Context, client *nbd.Client, what string, err error) error {
	err = s.fail(ctx, what, err)
	if transfer.MayPass(err) {
		s.broke(client)
	}
	return err
}

// fail says what an error was about, whether it may pass, and what helps.
func (s *server) fail(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err == nil || transfer.Is[*cli.Error](err) || transfer.IsLasting(err) {
		return err
	}
	e := &cli.Error{Err: fmt.Errorf("%s: %s: %w", s, what, err), Code: cli.ExitServer}
	switch {
	case nbd.IsConnectionError(err):
		e.Err = transfer.Passing(e.Err)
	case errors.Is(err, syscall.ENOSPC):
		e.Code = cli.ExitNoSpace
	case errors.Is(err, nbd.ErrTLSRequired):
		e.Hint = "write nbds:// in place of nbd://; --cacert FILE names the certificates to trust"
	case errors.Is(err, nbd.ErrTLSRefused):
		e.Hint = "write nbd:// in place of nbds://, where the line is a safe one"
	case transfer.Is[*nbd.TLSError](err):
		e.Hint = "--cacert FILE names the certificates to trust; ?tls-certificates=DIR in the URL is a folder with those of the client, too"
	}
	return e
}
