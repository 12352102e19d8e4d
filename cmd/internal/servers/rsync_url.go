package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"flatimg/cmd/internal/cli"
)

// rsyncOverSSH is the scheme of a path at the other end of ssh; "rsync" is that
// of a daemon's module.
const rsyncOverSSH = "rsync+ssh"

// parseRsync parses rsync://[user@]host[:port]/module/path, whose returned path
// begins with the module, and rsync+ssh://[user@]host[:port]/path, whose path is
// as that of sftp:// URLs.
func parseRsync(text string) (scheme string, _ sshTarget, path string, _ error) {
	scheme, _ = schemeOf(text)
	fail := func(what string) (string, sshTarget, string, error) {
		return "", sshTarget{}, "", usage(errors.New(what), "write rsync://[user@]host[:port]/module/path or rsync+ssh://[user@]host[:port]/path")
	}
	t, u, err := parseHostURL(text)
	if err != nil {
		if is[*cli.Error](err) {
			return "", sshTarget{}, "", err
		}
		return fail(err.Error())
	}
	if err := checkRsyncPath(u.Path); err != nil {
		return fail(fmt.Sprintf("%s: %v", text, err))
	}
	if scheme != rsyncOverSSH {
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

// checkRsyncPath refuses what a server would take for a pattern: where files
// match it, it would be theirs, and quoted where none does.
func checkRsyncPath(path string) error {
	if i := strings.IndexAny(path, `*?[\`+"\x00\n\r"); i >= 0 {
		return fmt.Errorf("rsync would take %q in a path for a pattern", path[i])
	}
	return nil
}

// rsyncServer is a daemon or an account where the user's own rsync brings files
// to and gets them from.
type rsyncServer struct {
	scheme   string
	target   sshTarget // of a daemon, too: its command is unused
	password string
	limit    int64 // bytes a second; 0: none
	retry    *retrier
}

// newRsyncServer returns the server that text names, and the path there.
func newRsyncServer(ctx context.Context, text string, o Options) (*rsyncServer, string, error) {
	scheme, t, path, err := parseRsync(text)
	if err != nil {
		return nil, "", err
	}
	s := &rsyncServer{scheme: scheme, target: t, limit: o.BandwidthLimit, retry: newRetrier(o)}
	if s.overSSH() {
		s.target.command = sshCommand(o)
		s.target = s.target.withDefaults(ctx)
		return s, path, nil
	}
	if s.target.user == "" {
		s.target.user = o.User
	}
	if o.PasswordFile == "" && os.Getenv("RSYNC_PASSWORD") != "" {
		return s, path, nil // rsync takes it from there
	}
	if s.target.user == "" {
		s.password, err = password(o)
	} else {
		s.password, err = passwordOf(ctx, s.target.user, s.target.host, o)
	}
	return s, path, err
}

func (s *rsyncServer) overSSH() bool { return s.scheme == rsyncOverSSH }

// url returns the URL of a path on the server for people.
func (s *rsyncServer) url(path string) string { return s.target.url(s.scheme, path) }

// arg returns the argument that stands for a path on the server. User and port
// are among the options of ssh.
func (s *rsyncServer) arg(path string) string {
	if !s.overSSH() {
		return s.target.url("rsync", path)
	}
	if strings.Contains(s.target.host, ":") {
		return "[" + s.target.host + "]:" + path
	}
	return s.target.host + ":" + path
}
