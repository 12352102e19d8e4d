package sftp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"time"

	"flatimg/cmd/internal/servers/ssh"
	"flatimg/cmd/internal/servers/transfer"
)

// Publish implements [servers.Upload].
func (u *upload) Publish(ctx context.Context) error {
	lost := false
	err := u.server.do(ctx, u.String(), "rename the partial file", func(c *conn) error {
		if lost {
			if done, err := u.wasPublished(c); done || err != nil {
				return err
			}
		}
		err := u.rename(c)
		lost = lost || isLost(err)
		return err
	})
	if err == nil {
		u.part = ""
	}
	return err
}

// rename gives the part its final name.
func (u *upload) rename(c *conn) error {
	if u.force {
		return u.replace(c)
	}
	if _, err := c.Lstat(u.path); err == nil {
		return transfer.Exists(u.String())
	}
	// SFTP's own rename must not replace a file (draft 02, section 6.5), and at
	// some servers does; a link can't.
	err := errors.ErrUnsupported
	if c.has("hardlink@openssh.com") {
		if err = c.Link(u.partPath(), u.path); err == nil {
			return u.removeName(c)
		}
	}
	if !isLost(err) {
		if _, err := c.Lstat(u.path); err == nil {
			return transfer.Exists(u.String())
		}
		err = c.Rename(u.partPath(), u.path)
	}
	if err != nil && !isLost(err) {
		if _, statErr := c.Lstat(u.path); statErr == nil {
			return transfer.Exists(u.String())
		}
	}
	return err
}

// replace gives the part its final name in place of another file; the extension
// does that at once. Without it, the old file is put aside until that is done.
func (u *upload) replace(c *conn) error {
	if c.has("posix-rename@openssh.com") {
		return c.PosixRename(u.partPath(), u.path)
	}
	if err := c.Rename(u.path, u.asidePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := c.Rename(u.partPath(), u.path); err != nil {
		if !isLost(err) {
			c.Rename(u.asidePath(), u.path)
		}
		return err
	}
	c.Remove(u.asidePath())
	return nil
}

// asidePath is where the file that the part replaces is meanwhile.
func (u *upload) asidePath() string {
	return ssh.RemoteJoin(ssh.RemoteFolder(u.path), strings.Replace(u.part, ".part-", ".prev-", 1))
}

// restore gives a file that was put aside its name back.
func (u *upload) restore(c *conn) {
	if !u.force || c.has("posix-rename@openssh.com") {
		return
	}
	if _, err := c.Lstat(u.path); errors.Is(err, fs.ErrNotExist) {
		c.Rename(u.asidePath(), u.path)
	}
}

// removeName removes the name that a published file has as part.
func (u *upload) removeName(c *conn) error {
	err := c.Remove(u.partPath())
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case isLost(err):
		return err
	}
	if say := u.server.retry.Say; say != nil {
		say("%s is published; its name %s is left over on the server: %v", u, u.partPath(), err)
	}
	return nil
}

// wasPublished says whether a rename whose answer was lost has happened.
func (u *upload) wasPublished(c *conn) (bool, error) {
	target, err := c.Lstat(u.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	_, err = c.Lstat(u.partPath())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if target.Size() != u.size {
			return false, fmt.Errorf("the partial file is gone, and another one has its name: %w", fs.ErrExist)
		}
		return true, nil
	case err != nil || target.Size() != u.size:
		return false, err
	}
	same, err := u.isPart(c)
	if err != nil || !same {
		return false, err
	}
	return true, u.removeName(c)
}

// isPart says whether the target is a link to the part. SFTP doesn't tell one
// file from another, but a time that is set for the part can be seen.
func (u *upload) isPart(c *conn) (bool, error) {
	mark := time.Unix(rand.Int64N(1<<30), 0)
	if err := c.Chtimes(u.partPath(), mark, mark); err != nil {
		return false, err
	}
	fi, err := c.Lstat(u.path)
	if err != nil {
		return false, err
	}
	now := time.Now()
	return fi.ModTime().Unix() == mark.Unix(), c.Chtimes(u.partPath(), now, now)
}
