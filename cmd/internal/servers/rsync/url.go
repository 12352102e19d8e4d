package rsync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// OverSSH is the scheme of a path at the other end of ssh; "rsync" is that
// of a daemon's module.
const OverSSH = "rsync+ssh"

// parseURL parses rsync://[user@]host[:port]/module/path, whose returned path
// begins with the module, and rsync+ssh://[user@]host[:port]/path, whose path is
// as that of sftp:// URLs.
func parseURL(text string) (scheme string, _ ssh.Target, path string, _ error) {
	scheme, _ = transfer.SchemeOf(text)
	fail := func(what string) (string, ssh.Target, string, error) {
		return "", ssh.Target{}, "", transfer.Usage(errors.New(what), "write rsync://[user@]host[:port]/module/path or rsync+ssh://[user@]host[:port]/path")
	}
	t, u, err := ssh.ParseHostURL(text)
	if err != nil {
		if transfer.Is[*cli.Error](err) {
			return "", ssh.Target{}, "", err
		}
		return fail(err.Error())
	}
	if err := checkPath(u.Path); err != nil {
		return fail(fmt.Sprintf("%s: %v", text, err))
	}
	if scheme != OverSSH {
		path = strings.TrimLeft(u.Path, "/")
		if path == "" {
			return fail(fmt.Sprintf("%s: no module", text))
		}
		return scheme, t, path, nil
	}
	if home, ok := strings.CutPrefix(u.Path, "/~/"); ok {
		return scheme, t, "./" + home, nil
	}
	if u.Path == "" {
		return fail(fmt.Sprintf("%s: no path", text))
	}
	return scheme, t, u.Path, nil
}

// checkPath refuses what a server would take for a pattern: where files
// match it, it would be theirs, and quoted where none does.
func checkPath(path string) error {
	if i := strings.IndexAny(path, `*?[\`+"\x00\n\r"); i >= 0 {
		return fmt.Errorf("rsync would take %q in a path for a pattern", path[i])
	}
	return nil
}

// server is a daemon or an account where the user's own rsync brings files
// to and gets them from.
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
		s.target.Command = ssh.Command(o)
		s.target = s.target.WithDefaults(ctx)
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
