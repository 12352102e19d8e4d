package rsync

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// Publish implements [servers.Upload].
//
// Where nothing has the final name, rsync is asked to send the file there with
// the hidden folder as what it may link to (--link-dest): it finds the file of
// that size and time in it, and sends nothing. A link can't replace a file. A
// file system without links gets a copy, which rsync renames when it is whole.
//
// An existing file is replaced with the hidden folder as that of a transfer that
// was cut (--partial-dir): rsync compares what is there with the file, block by
// block on both sides, and renames it over the old one. That reads the file once
// more, but at no time there is no file.
func (u *upload) Publish(ctx context.Context) error {
	lost := false
	err := u.server.retry.Do(ctx, "publish", func() error {
		err := u.publish(ctx, lost)
		lost = lost || err != nil
		return err
	})
	if err != nil {
		return u.wrap(ctx, "give it its name", err)
	}
	if err := u.remove(ctx); err != nil {
		u.log.Say("folder %s is left over on the server: %v", u.part, err)
	}
	u.part = ""
	return nil
}

// publish links the file to its final name, or replaces what has it. After a
// lost answer it may have that name already.
func (u *upload) publish(ctx context.Context, lost bool) error {
	made, err := u.sendAgain(ctx, "--ignore-existing", "--sparse", "--link-dest="+u.part)
	switch {
	case err != nil || made:
		return err
	case lost:
		if err := u.checkPublished(ctx); !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if !u.force {
		return transfer.Exists(u.String())
	}
	_, err = u.sendAgain(ctx, "--partial-dir="+u.part)
	return err
}

// sendAgain asks rsync to send the file to its final name by what is in the
// hidden folder, and says whether rsync has made it; else there is one.
func (u *upload) sendAgain(ctx context.Context, how ...string) (made bool, err error) {
	args := append(sends(), "--no-whole-file", "--itemize-changes", "--itemize-changes", "--out-format=%i")
	args = append(args, how...)
	out, err := u.server.run(ctx, u.size, append(args, u.file, u.folder())...)
	return strings.TrimSpace(out) != "", err
}

// checkPublished looks whether the target is the file, by size and time.
func (u *upload) checkPublished(ctx context.Context) error {
	args := append(sends(), "--dry-run", "--out-format=%i")
	differs, err := u.server.run(ctx, 0, append(args, u.file, u.folder())...)
	switch {
	case err != nil:
		return err
	case strings.Contains(differs, "+++"):
		return transfer.Lasting(errors.New("rsync has published nothing"))
	case strings.TrimSpace(differs) != "":
		return transfer.Exists(u.String())
	}
	return nil
}

var _ = (servers.Verifier)((*upload)(nil))

// Verify implements [servers.Verifier]: rsync compares checksums of what both
// sides have on their disks. Where the account has a shell, the server's SHA-256
// says more.
func (u *upload) Verify(ctx context.Context, want []byte) (string, error) {
	if u.server.overSSH() && want != nil {
		part := ssh.RemoteJoin(ssh.RemoteFolder(u.path), u.part+"/"+path.Base(u.path))
		by, err := u.server.target.VerifySHA256(ctx, u.server.retry, u.String(), part, want)
		if !errors.Is(err, errors.ErrUnsupported) {
			return by, err
		}
	}
	args := append(sends(), "--checksum", "--dry-run", "--out-format=%i", u.file, u.partFolder())
	var differs string
	err := u.server.retry.Do(ctx, "verify", func() (err error) {
		differs, err = u.server.run(ctx, u.size, args...)
		return err
	})
	if err != nil {
		return "", u.wrap(ctx, "verify", err)
	}
	if strings.Contains(differs, "c") || strings.Contains(differs, "+") || strings.Contains(differs, "s") {
		return "", &cli.Error{
			Err:  fmt.Errorf("%s: what arrived differs from what was sent, as rsync compares them (%s)", u, strings.TrimSpace(differs)),
			Hint: "nothing was published; try again, and suspect the server's disk or memory",
			Code: cli.ExitServer,
		}
	}
	return "rsync's checksum on the server", nil
}
