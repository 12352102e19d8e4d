package servers

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
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
	// sftpInFlight is how many bytes are sent before the first of them must be
	// confirmed; more help only on lines with a long delay.
	sftpInFlight = 4 << 20
	// sftpGrace is how long the removal of a partial file may take.
	sftpGrace = 5 * time.Second
)

// sftpUpload is an upload through the user's own ssh.
type sftpUpload struct {
	target sshTarget
	path   string // of the target on the server
	part   string // of what is sent; empty until Send has created it
	force  bool

	ssh    *sshProcess
	client *sftp.Client
	packet int64 // bytes of data in a request
	// hangUp ends the connection at once.
	hangUp context.CancelFunc
}

var _ = (Verifier)((*sftpUpload)(nil))
var _ = (ReadBacker)((*sftpUpload)(nil))

func openSFTP(ctx context.Context, dest string, o Options) (Upload, error) {
	target, name, err := parseSFTP(dest)
	if err != nil {
		return nil, err
	}
	target.command = sshCommand(o)
	u := &sftpUpload{target: target, path: name, force: o.Force}
	if err := u.connect(ctx); err != nil {
		return nil, err
	}
	// The checks are a few short requests; ssh's own timeouts bound them.
	stop := context.AfterFunc(ctx, u.hangUp)
	err = u.check(o.Name)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		u.Close(false)
		return nil, err
	}
	return u, nil
}

// connect starts ssh and greets the server. The connection outlives ctx, so
// that what was sent can be removed after an interrupt.
func (u *sftpUpload) connect(ctx context.Context) error {
	life, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, hangUp)
	ssh, err := u.target.subsystem(life, "sftp")
	if err != nil {
		hangUp()
		return err
	}
	u.ssh, u.hangUp = ssh, hangUp
	u.client, err = sftp.NewClientPipe(ssh.out, ssh.in, sftp.UseConcurrentWrites(true))
	if err != nil {
		ssh.close()
		hangUp()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return u.unreachable(ssh.errs.String(), err)
	}
	if !stop() {
		u.Close(false)
		return context.Cause(ctx)
	}
	u.packet = sftpPacket
	if _, ok := u.client.HasExtension("limits@openssh.com"); ok {
		u.packet = sftpPacketOpenSSH
		return sftp.MaxPacketUnchecked(sftpPacketOpenSSH)(u.client)
	}
	return nil
}

func (u *sftpUpload) unreachable(said string, err error) error {
	if said == "" {
		said = err.Error()
	}
	return &cli.Error{
		Err:  fmt.Errorf("%s: no sftp connection: %s", u, said),
		Hint: fmt.Sprintf("try: %s; --ssh-command chooses another ssh or its options", u.target),
		Code: cli.ExitServer,
	}
}

// check looks at the target and its folder.
func (u *sftpUpload) check(name string) error {
	fi, err := u.client.Stat(u.path)
	if isFolder := err == nil && fi.IsDir(); isFolder || strings.HasSuffix(u.path, "/") {
		u.path = path.Join(u.path, name)
		fi, err = u.client.Stat(u.path)
	}
	folder := path.Dir(u.path)
	if d, err := u.client.Stat(folder); errors.Is(err, fs.ErrNotExist) || err == nil && !d.IsDir() {
		return &cli.Error{
			Err:  fmt.Errorf("%s: no folder %s on the server", u, folder),
			Hint: fmt.Sprintf("make it with: %s mkdir -p %s", u.target, shellQuote(folder)),
			Code: cli.ExitServer,
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return u.fail("look at it", err)
	case fi.IsDir():
		return usage(fmt.Errorf("%s: is a folder", u), "remove it, or give the file another name")
	case !fi.Mode().IsRegular():
		return usage(fmt.Errorf("%s: not a regular file", u), "choose another name")
	case !u.force:
		return exists(u.String())
	}
	return nil
}

func (u *sftpUpload) String() string {
	var b strings.Builder
	b.WriteString("sftp://")
	if u.target.user != "" {
		b.WriteString(u.target.user + "@")
	}
	b.WriteString(u.target.host)
	if u.target.port != "" {
		b.WriteString(":" + u.target.port)
	}
	b.WriteString("/" + strings.TrimPrefix(u.path, "/"))
	return b.String()
}

func (u *sftpUpload) Send(ctx context.Context, src Source, log Log) error {
	if err := u.checkSpace(src); err != nil {
		return err
	}
	// Requests can't be taken back: after an interrupt those under way get
	// some time, so that the partial file can be removed behind them.
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(sftpGrace, u.hangUp) })
	defer stop()

	part := path.Join(path.Dir(u.path), hiddenName(path.Base(u.path)))
	f, err := u.client.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return u.fail("create a file beside it", err)
	}
	u.part = part
	defer f.Close()
	// Some servers would take data past the end for an error.
	if err := f.Truncate(src.Size()); err != nil {
		return u.fail("set its size", err)
	}
	s := sender{dst: f, workers: int(sftpInFlight / u.packet), chunk: u.packet, log: log}
	if err := s.send(ctx, src); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return u.fail("send", u.explain(err))
	}
	if _, ok := u.client.HasExtension("fsync@openssh.com"); ok {
		if err := f.Sync(); err != nil {
			return u.fail("flush", err)
		}
	}
	return u.fail("close", f.Close())
}

// checkSpace compares the data of src with what is free in the target's folder,
// where the server tells.
func (u *sftpUpload) checkSpace(src Source) error {
	need, err := dataSize(src)
	if err != nil {
		return err
	}
	if free, ok := u.freeSpace(); ok && need > free {
		return noSpace(u.String(), need, free)
	}
	return nil
}

func (u *sftpUpload) freeSpace() (int64, bool) {
	if _, ok := u.client.HasExtension("statvfs@openssh.com"); !ok {
		return 0, false
	}
	st, err := u.client.StatVFS(path.Dir(u.path))
	if err != nil {
		return 0, false
	}
	return int64(st.Bavail * st.Frsize), true
}

// explain finds the reason for a write that the server refused: SFTP has no
// word for a full disk.
func (u *sftpUpload) explain(err error) error {
	if _, ok := errors.AsType[*sftp.StatusError](err); !ok {
		return err
	}
	if free, ok := u.freeSpace(); ok && free < u.packet {
		return noSpace("the server", u.packet, free)
	}
	return err
}

// Verify implements [Verifier] with a second connection.
func (u *sftpUpload) Verify(ctx context.Context, want []byte) (string, error) {
	const program = "sha256sum"
	if want == nil {
		return "", noVerification(u.String(), "the SHA-256 is not known")
	}
	// From standard input: with a file name, strange ones are escaped.
	out, err := u.target.run(ctx, program+" < "+shellQuote(u.part))
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	text, _, _ := strings.Cut(string(out), " ")
	sum, hexErr := hex.DecodeString(text)
	if err != nil || hexErr != nil || len(sum) != len(want) {
		// No shell, no sha256sum, or no login without a prompt.
		return "", noVerification(u.String(), fmt.Sprintf("no %s on the server: %v", program, err))
	}
	by := program + " on the server"
	if !bytes.Equal(sum, want) {
		return "", Differs(u.String(), sum, by, want)
	}
	return by, nil
}

// ReadBack implements [ReadBacker].
func (u *sftpUpload) ReadBack(ctx context.Context, w io.Writer, off, length int64) error {
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(sftpGrace, u.hangUp) })
	defer stop()
	f, err := u.client.Open(u.part)
	if err != nil {
		return u.fail("read it back", err)
	}
	defer f.Close()
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return u.fail("read it back", err)
	}
	n, err := io.CopyBuffer(onlyWriter{contextWriter{ctx, w}}, io.LimitReader(f, length), make([]byte, sftpInFlight))
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	return u.fail("read it back", err)
}

// onlyWriter hides ReadFrom, which would ignore the buffer of io.CopyBuffer.
type onlyWriter struct{ io.Writer }

// contextWriter ends with the context.
type contextWriter struct {
	ctx context.Context
	io.Writer
}

func (w contextWriter) Write(p []byte) (int, error) {
	if err := context.Cause(w.ctx); err != nil {
		return 0, err
	}
	return w.Writer.Write(p)
}

// Publish implements [Upload].
func (u *sftpUpload) Publish(ctx context.Context) error {
	stop := context.AfterFunc(ctx, u.hangUp)
	defer stop()
	if err := u.rename(); err != nil {
		if _, statErr := u.client.Lstat(u.path); statErr == nil && !u.force {
			return exists(u.String())
		}
		return u.fail("rename the partial file", err)
	}
	u.part = ""
	return nil
}

// rename gives the part its final name. SFTP's own rename does not replace a
// file, that of the extension does, at once.
func (u *sftpUpload) rename() error {
	if !u.force {
		return u.client.Rename(u.part, u.path)
	}
	if _, ok := u.client.HasExtension("posix-rename@openssh.com"); ok {
		return u.client.PosixRename(u.part, u.path)
	}
	if err := u.client.Remove(u.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return u.client.Rename(u.part, u.path)
}

// Close implements [Upload].
func (u *sftpUpload) Close(bool) error {
	timer := time.AfterFunc(sftpGrace, u.hangUp)
	defer timer.Stop()
	var err error
	if u.part != "" {
		if e := u.client.Remove(u.part); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = fmt.Errorf("partial file %s is left over on the server: %w", u.part, e)
		}
	}
	u.client.Close()
	u.ssh.close()
	u.hangUp()
	return err
}

// fail adds to an error of a request what it was about, and after a lost
// connection what ssh said.
func (u *sftpUpload) fail(what string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*cli.Error](err); ok {
		return e
	}
	_, refused := errors.AsType[*sftp.StatusError](err)
	if !refused && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, fs.ErrNotExist) {
		// ssh ends soon after the connection; its last words say why.
		if said := u.ssh.lastWords(); said != "" {
			err = fmt.Errorf("%w: %s", err, said)
		}
	}
	return &cli.Error{Err: fmt.Errorf("%s: %s: %w", u, what, err), Code: cli.ExitServer}
}
