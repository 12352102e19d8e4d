package area

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
	"flatimg/convert"
	"flatimg/layers"
)

// Options say what is exported and where to.
type Options struct {
	// Image is the path of the top of the chain; Open says how it is opened.
	Image string
	Open  layers.Options
	// Dest is a path or a URL. In a folder the file is named after the image.
	Dest string
	// Format of the target with its options, as [convert.ParseSpec] takes it.
	// Default: what the extension of Dest names, else raw.
	Format string
	// Area is the directory in which the target is made. Default: see the
	// package's documentation.
	Area string
	// Keep keeps the file in the area, if there is one.
	Keep bool
	// Force replaces an existing file.
	Force bool
	// Verify compares the file with the view before it is published. What is
	// sent is verified in any case.
	Verify bool
	// SSH is a shell's command line that starts ssh. Default: that in the
	// environment's FLATIMG_SSH, else "ssh".
	SSH string
	// Meter shows the progress; nil: nobody is interested.
	Meter *progress.Meter
}

// Report says how an export went.
type Report struct {
	// Dest is where the file is now.
	Dest string
	Stats
	// Sent says whether the file was made in an area and copied from there.
	Sent bool
	// SHA256 of the file; nil when it was not computed.
	SHA256 []byte
	// VerifiedBy says how a sent file was verified.
	VerifiedBy string
	// Kept is the path of the file in the area; empty when there is none.
	Kept string
	Took time.Duration
}

// Export exports an image. On an error nothing is at the destination.
func Export(ctx context.Context, o Options) (_ *Report, err error) {
	begin := time.Now()
	spec, err := targetSpec(o.Format, o.Dest)
	if err != nil {
		return nil, &cli.Error{Err: err, Code: cli.ExitUsage}
	}
	if err := o.checkArea(); err != nil {
		return nil, err
	}
	im, err := layers.Open(o.Image, o.Open)
	if err != nil {
		return nil, err
	}
	defer im.Close()
	name := targetName(o.Image, o.Open.Snapshot, spec)
	if err := checkNotSource(im, o.Dest, name); err != nil {
		return nil, err
	}
	target, err := convert.New(im, spec)
	if err != nil {
		return nil, err
	}
	up, err := servers.Open(ctx, o.Dest, servers.Options{Name: name, Force: o.Force, SSH: o.SSH})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, up.Close()) }()
	defer o.Meter.Stop()

	e := export{o, im, target, &Report{}}
	if local, ok := up.(servers.Local); ok && (o.Area == "" || sameFileSystem(o.Area, local.Dir())) {
		err = e.makeThere(ctx, local)
	} else {
		err = e.makeAndSend(ctx, up, name)
	}
	if err != nil {
		return nil, err
	}
	e.report.Dest = up.String()
	e.report.Took = time.Since(begin)
	return e.report, nil
}

// export is one run of Export.
type export struct {
	Options
	image  *layers.Image
	target convert.Target
	report *Report
}

// makeThere makes the file in its destination's folder.
func (e *export) makeThere(ctx context.Context, up servers.Local) error {
	f, err := up.Create()
	if err != nil {
		return err
	}
	if err := e.fill(ctx, f); err != nil {
		return fillError(up.String(), err, "choose another destination, or free space there")
	}
	return up.Publish(ctx)
}

// makeAndSend makes the file in an area and sends it from there.
func (e *export) makeAndSend(ctx context.Context, up servers.Upload, name string) (err error) {
	dir := e.area()
	j, err := newJob(dir, name)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, j.remove())
			return
		}
		j.Close()
		e.report.Kept = j.Name()
		if err != nil {
			err = fmt.Errorf("%w; the file is kept at %s", err, j.Name())
		}
	}()
	if err := e.fill(ctx, j.File); err != nil {
		return fillError("area "+dir, err, "--area DIR chooses another area")
	}
	keep = e.Keep
	src := &source{File: j.File, size: e.report.Size}
	sum, err := e.send(ctx, up, src)
	if err != nil {
		return err
	}
	if e.report.VerifiedBy, err = verifySent(ctx, up, sum, src.size, e.Meter); err != nil {
		return err
	}
	e.report.SHA256 = sum
	e.report.Sent = true
	return up.Publish(ctx)
}

// fill makes the file and verifies it as far as was asked.
func (e *export) fill(ctx context.Context, f *os.File) error {
	var err error
	if e.report.Stats, err = Fill(ctx, f, e.target, e.Meter); err != nil {
		return err
	}
	if e.Verify {
		src := &source{File: f, size: e.report.Size}
		if e.report.SHA256, err = verifyFile(ctx, src, e.target, e.Meter); err != nil {
			return err
		}
	}
	return checkUnchanged(e.image)
}

// send sends src and returns its SHA-256, which is computed meanwhile.
func (e *export) send(ctx context.Context, up servers.Upload, src *source) ([]byte, error) {
	e.Meter.Start("sending", e.report.Data)
	group, ctx := errgroup.WithContext(ctx)
	var sum []byte
	group.Go(func() (err error) {
		sum, err = hashFile(ctx, src)
		return err
	})
	group.Go(func() error { return up.Send(ctx, src, e.Meter.Add) })
	return sum, group.Wait()
}

// fillError names the place in an error of making the file, in place of one
// without a name; hint says what helps when it is full.
func fillError(place string, err error, hint string) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok && !errors.Is(err, layers.ErrSource) {
		err = pathErr.Err
	}
	err = fmt.Errorf("%s: %w", place, err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = &cli.Error{Err: err, Hint: hint, Code: cli.ExitNoSpace}
	}
	return err
}
