package servers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"time"
)

// Publish implements [Upload].
func (u *sftpUpload) Publish(ctx context.Context) error {
	lost := false
	err := u.server.do(ctx, u.String(), "rename the partial file", func(c *sftpConn) error {
		if lost {
			if done, err := u.wasPublished(c); done || err != nil {
				return err
			}
		}
		err := u.rename(c)
		lost = lost || sftpLost(err)
		return err
	})
	if err == nil {
		u.part = ""
	}
	return err
}

// rename gives the part its final name.
func (u *sftpUpload) rename(c *sftpConn) error {
	if u.force {
		return u.replace(c)
	}
	if _, err := c.Lstat(u.path); err == nil {
		return exists(u.String())
	}
	// SFTP's own rename must not replace a file (draft 02, section 6.5), and at
	// some servers does; a link can't.
	err := errors.ErrUnsupported
	if c.has("hardlink@openssh.com") {
		if err = c.Link(u.partPath(), u.path); err == nil {
			return u.removeName(c)
		}
	}
	if !sftpLost(err) {
		if _, err := c.Lstat(u.path); err == nil {
			return exists(u.String())
		}
		err = c.Rename(u.partPath(), u.path)
	}
	if err != nil && !sftpLost(err) {
		if _, statErr := c.Lstat(u.path); statErr == nil {
			return exists(u.String())
		}
	}
	return err
}

// replace gives the part its final name in place of another file; the extension
// does that at once. Without it, the old file is put aside until that is done.
func (u *sftpUpload) replace(c *sftpConn) error {
	if c.has("posix-rename@openssh.com") {
		return c.PosixRename(u.partPath(), u.path)
	}
	if err := c.Rename(u.path, u.asidePath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := c.Rename(u.partPath(), u.path); err != nil {
		if !sftpLost(err) {
			c.Rename(u.asidePath(), u.path)
		}
		return err
	}
	c.Remove(u.asidePath())
	return nil
}

// asidePath is where the file that the part replaces is meanwhile.
func (u *sftpUpload) asidePath() string {
	return remoteJoin(remoteFolder(u.path), strings.Replace(u.part, ".part-", ".prev-", 1))
}

// restore gives a file that was put aside its name back.
func (u *sftpUpload) restore(c *sftpConn) {
	if !u.force || c.has("posix-rename@openssh.com") {
		return
	}
	if _, err := c.Lstat(u.path); errors.Is(err, fs.ErrNotExist) {
		c.Rename(u.asidePath(), u.path)
	}
}

// removeName removes the name that a published file has as part.
func (u *sftpUpload) removeName(c *sftpConn) error {
	err := c.Remove(u.partPath())
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil
	case sftpLost(err):
		return err
	}
	if say := u.server.retry.say; say != nil {
		say("%s is published; its name %s is left over on the server: %v", u, u.partPath(), err)
	}
	return nil
}

// wasPublished says whether a rename whose answer was lost has happened.
func (u *sftpUpload) wasPublished(c *sftpConn) (bool, error) {
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
func (u *sftpUpload) isPart(c *sftpConn) (bool, error) {
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
