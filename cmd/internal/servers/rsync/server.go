package rsync

import (
	"context"
	"os"
	"strings"

	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// server is a daemon or an account where the user's own rsync brings files to
// and gets them from.
type server struct {
	scheme   string
	target   ssh.Target // of a daemon, too: its command is unused
	password string
	limit    int64 // bytes a second; 0: none
	retry    *transfer.Retrier
}

// newServer returns the server that text names, and the path there.
func newServer(ctx context.Context, text string, o servers.Options) (*server, string, error) {
	scheme, t, path, err := parseURL(text)
	if err != nil {
		return nil, "", err
	}
	s := &server{scheme: scheme, target: t, limit: o.BandwidthLimit, retry: transfer.NewRetrier(o)}
	if s.overSSH() {
		s.target = s.target.WithOptions(ctx, o)
		return s, path, nil
	}
	if s.target.User == "" {
		s.target.User = o.User
	}
	if o.PasswordFile == "" && os.Getenv("RSYNC_PASSWORD") != "" {
		return s, path, nil // rsync takes it from there
	}
	if s.target.User == "" {
		s.password, err = transfer.Password(o)
	} else {
		s.password, err = transfer.PasswordOf(ctx, s.target.User, s.target.Host, o)
	}
	return s, path, err
}

func (s *server) overSSH() bool { return s.scheme == OverSSH }

// url returns the URL of a path on the server for people.
func (s *server) url(path string) string { return s.target.URL(s.scheme, path) }

// arg returns the argument that stands for a path on the server. User and port
// are among the options of ssh.
func (s *server) arg(path string) string {
	if !s.overSSH() {
		return s.target.URL("rsync", path)
	}
	if strings.Contains(s.target.Host, ":") {
		return "[" + s.target.Host + "]:" + path
	}
	return s.target.Host + ":" + path
}
