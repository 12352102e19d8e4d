package area

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/servers/schemes"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// request is what this export is to do.
func (e *export) request() (Request, error) {
	image, err := filepath.Abs(e.Image)
	dest := e.Dest
	if path, isLocal := schemes.LocalPath(dest); isLocal {
		dest = absolute(path)
	}
	return Request{
		Image: image, URL: dest, Snapshot: e.Open.Snapshot, Since: e.Since, Format: e.spec.String(),
		VirtualSize: e.VirtualSize, DropZeros: e.DropZeros,
	}, err
}

// destination is how the upload of the file with that role was opened.
func (e *export) destination(role string) (dest, name string) {
	for _, o := range e.opened {
		if o.role == role {
			return o.dest, o.name
		}
	}
	panic("area: internal error: no upload of " + role)
}

// findJob takes up an earlier export of the same, of the same state of the
// image. One of another state can't be gone on with: what was sent would be
// mixed with what is now.
func (e *export) findJob(ctx context.Context) error {
	_, isLocal := schemes.LocalPath(e.Dest)
	if isLocal && e.Resume {
		return cli.Usagef("%s: a local export is one copy, there is nothing to resume", e.Dest)
	}
	request, err := e.request()
	if err != nil {
		return err
	}
	j, err := findJob(e.areaDir, request)
	if err != nil {
		return err
	}
	if j == nil || !j.resumable() && j.file(mainFile).Made == 0 {
		if e.Resume {
			return errors.Join(&cli.Error{
				Err:  fmt.Errorf("%s: in area %s is no unfinished export of %s to it that nobody works on", e.Dest, e.areaDir, e.Image),
				Hint: "flatimg jobs lists what there is; without --resume the export begins anew",
				Code: cli.ExitRefused,
			}, closeJob(j))
		}
		if j != nil {
			return j.remove()
		}
		return nil
	}
	fingerprint, err := stateOf(e.image)
	if err != nil {
		return errors.Join(err, j.close())
	}
	if fingerprint != "" && fingerprint == j.record.Fingerprint {
		e.job = j
		return nil
	}
	why := fmt.Sprintf("%s has changed since its export began at %s", e.Image, j.record.Begun.Local().Format(time.DateTime))
	if fingerprint == "" {
		why = fmt.Sprintf("%s is on a block device, which may have changed since its export began", e.Image)
	}
	if e.Resume {
		return errors.Join(&cli.Error{
			Err:  fmt.Errorf("%s: what was sent must not be mixed with what it is now", why),
			Hint: "without --resume the export begins anew",
			Code: cli.ExitRefused,
		}, j.close())
	}
	e.Meter.Say(why + ": it begins anew")
	if err := j.discard(ctx); err != nil {
		e.Meter.Say(err.Error())
	}
	return nil
}

func closeJob(j *job) error {
	if j == nil {
		return nil
	}
	return j.close()
}

// needJob makes a job unless there is one.
func (e *export) needJob() error {
	if e.job != nil {
		return nil
	}
	request, err := e.request()
	if err != nil {
		return err
	}
	fingerprint, err := stateOf(e.image)
	if err != nil {
		return err
	}
	a := access{SSH: e.Server.SSH, CACert: absolute(e.Server.CACert), User: e.Server.User, PasswordFile: absolute(e.Server.PasswordFile)}
	e.job, err = newJob(e.areaDir, request, fingerprint, a)
	if err != nil {
		return fillError("area "+e.areaDir, err, "--area DIR chooses another area")
	}
	return nil
}

func absolute(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// end closes all uploads, and the job: it is kept when a later run can go on
// with it, and removed otherwise.
func (e *export) end(ctx context.Context, err error) error {
	keep := err != nil && e.job != nil && e.job.resumable() && (e.missesUpload() || !isFinal(err) && e.job.record.Fingerprint != "")
	for _, up := range e.opened {
		closeErr := up.Close(keep)
		// What is left over beside what is right is no error; of an interrupt
		// nobody would see a second one.
		if closeErr != nil && (err == nil || ctx.Err() != nil) {
			e.Meter.Say(closeErr.Error())
			continue
		}
		err = errors.Join(err, closeErr)
	}
	switch {
	case e.job == nil:
	case keep:
		e.job.flush()
		e.Meter.Say("the same command goes on with what the server has kept, " + e.job.removal(e.Area) + " gives it up")
		err = errors.Join(err, e.job.close())
	case e.report.Kept != "":
		err = errors.Join(err, e.job.leave())
	default:
		err = errors.Join(err, e.job.remove())
	}
	return err
}

// missesUpload says whether an earlier run has sent something whose upload could
// not be opened again: only the job knows of it.
func (e *export) missesUpload() bool {
	for role, f := range e.job.record.Files {
		isOpen := slices.ContainsFunc(e.opened, func(o opened) bool { return o.role == role })
		if f.State != nil && !isOpen {
			return true
		}
	}
	return false
}

// isFinal says whether a later run would fail with the same error, or could not
// go on, so that nothing is kept for it.
func isFinal(err error) bool {
	switch cli.ExitCode(err) {
	case cli.ExitExists, cli.ExitUsage, cli.ExitSource:
		return true
	}
	return errors.Is(err, transfer.ErrDiffers)
}

// leave leaves the files of a finished job, and forgets the job.
func (j *job) leave() error {
	return errors.Join(os.Remove(filepath.Join(j.dir, recordName)), j.close())
}

// stateOf names the state of an image, so that the same name promises the same
// bytes: besides what the image's own fingerprint has, the inode and the time of
// the last change of each file, which a write can't hide, and the program. Not
// the device's number, which a reboot may change. What was written to a block
// device nobody knows: the state of an image on one is empty.
func stateOf(im *layers.Image) (string, error) {
	isKnown := true
	h := sha256.New()
	own := im.Fingerprint()
	h.Write(own[:])
	if err := chainFiles(im, func(file *volume.File) error {
		var st syscall.Stat_t
		if err := syscall.Fstat(file.Fd(), &st); err != nil {
			return &os.PathError{Op: "stat", Path: file.Path(), Err: err}
		}
		fmt.Fprintf(h, "%d %d %d.%d\n", st.Ino, st.Size, st.Ctim.Sec, st.Ctim.Nsec)
		isKnown = isKnown && st.Mode&syscall.S_IFMT == syscall.S_IFREG
		return nil
	}); err != nil || !isKnown {
		return "", err
	}
	if program, err := os.Stat("/proc/self/exe"); err == nil {
		fmt.Fprintf(h, "%d %d\n", program.Size(), program.ModTime().UnixNano())
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
