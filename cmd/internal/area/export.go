package area

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
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
	// Keep keeps the file in the area, which is used then in any case.
	Keep bool
	// VirtualSize of the target in bytes; 0: that of the image.
	VirtualSize int64
	// Force replaces an existing file.
	Force bool
	// DropZeros reads all data first and leaves out what is zeros. A packed
	// target does so in any case.
	DropZeros bool
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
	// Stats are those of the file with its companions.
	Stats
	// Sent says whether the file was made in an area and copied from there.
	Sent bool
	// SHA256 of the file at Dest; nil when it was not computed.
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
		return nil, err
	}
	spec.VirtualSize = o.VirtualSize
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
	up, err := servers.Open(ctx, o.Dest, servers.Options{Name: name, Force: o.Force, SSH: o.SSH})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, up.Close(false)) }()
	defer o.Meter.Stop()

	e := export{Options: o, image: im, report: &Report{}}
	main, companions, err := e.products(ctx, spec, path.Base(up.String()))
	if err != nil {
		return nil, err
	}
	var uploads []servers.Upload // in the order in which they are published
	for _, c := range companions {
		var beside servers.Upload
		if beside, err = e.openCompanion(ctx, up, c.name); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, beside.Close(false)) }()
		if err := e.place(ctx, beside, c); err != nil {
			return nil, err
		}
		uploads = append(uploads, beside)
	}
	if err := e.place(ctx, up, main); err != nil {
		return nil, err
	}
	for _, up := range append(uploads, up) {
		if err := up.Publish(ctx); err != nil {
			return nil, e.kept(err)
		}
	}
	e.report.Dest = up.String()
	e.report.Took = time.Since(begin)
	return e.report, nil
}

// export is one run of Export.
type export struct {
	Options
	image  *layers.Image
	report *Report
}

// products returns what is to be made for a file of that name: the file itself
// and its companions.
func (e *export) products(ctx context.Context, spec convert.Spec, name string) (main product, companions []product, err error) {
	spec = spec.Named(name)
	if spec.Packed() {
		return product{name: name, maker: packed{e.image, spec}}, nil, nil
	}
	disk := convert.Disk(e.image)
	if e.DropZeros {
		e.Meter.Start("looking for zeros", 0)
		if disk, err = convert.DropZeros(ctx, disk, e.Meter.Add); err != nil {
			return product{}, nil, err
		}
	}
	target, err := convert.New(disk, spec)
	if err != nil {
		return product{}, nil, err
	}
	for _, c := range convert.Companions(target) {
		companions = append(companions, product{convert.Stem(name, spec) + c.Suffix, laidOut{c.Target}})
	}
	return product{name, laidOut{target}}, companions, nil
}

// openCompanion opens the destination, beside that of up, for a companion.
func (e *export) openCompanion(ctx context.Context, up servers.Upload, name string) (servers.Upload, error) {
	dest := e.Dest // of a server, and a folder
	if local, ok := up.(servers.Local); ok {
		dest = filepath.Join(local.Dir(), name)
		if err := checkNotSource(e.image, dest, name); err != nil {
			return nil, err
		}
	} else if folder, last := path.Split(dest); isEscaped(last, path.Base(up.String())) {
		dest = folder + url.PathEscape(name)
	}
	beside, err := servers.Open(ctx, dest, servers.Options{Name: name, Force: e.Force, SSH: e.SSH})
	if err != nil {
		return nil, err
	}
	if want := path.Join(path.Dir(up.String()), name); path.Clean(beside.String()) != want {
		err := cli.Usagef("%s: its companion would be %s, not %s: end DEST with the name of a file or with a slash", up, beside, want)
		return nil, errors.Join(err, beside.Close(false))
	}
	return beside, nil
}

// isEscaped says whether escaped is name as a URL has it.
func isEscaped(escaped, name string) bool {
	plain, err := url.PathUnescape(escaped)
	return err == nil && plain == name
}

// place makes a product and brings it to its destination, unpublished.
func (e *export) place(ctx context.Context, up servers.Upload, p product) error {
	if local, ok := up.(servers.Local); ok && !e.Keep && (e.Area == "" || sameFileSystem(e.Area, local.Dir())) {
		return e.makeThere(ctx, local, p)
	}
	return e.makeAndSend(ctx, up, p)
}

// makeThere makes the file in its destination's folder.
func (e *export) makeThere(ctx context.Context, up servers.Local, p product) error {
	f, err := up.Create()
	if err != nil {
		return err
	}
	if _, err := e.fill(ctx, f, p); err != nil {
		return fillError(up.String(), err, "choose another destination, or free space there")
	}
	return nil
}

// makeAndSend makes the file in an area and sends it from there.
func (e *export) makeAndSend(ctx context.Context, up servers.Upload, p product) (err error) {
	dir := e.area()
	j, err := newJob(dir, p.name)
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
		err = e.kept(err)
	}()
	size, err := e.fill(ctx, j.File, p)
	if err != nil {
		return fillError("area "+dir, err, "--area DIR chooses another area")
	}
	keep = e.Keep
	src := &source{File: j.File, size: size}
	sum, err := e.send(ctx, up, src)
	if err != nil {
		return err
	}
	if e.report.VerifiedBy, err = verifySent(ctx, up, sum, src.size, e.Meter); err != nil {
		return err
	}
	e.report.SHA256 = sum
	e.report.Sent = true
	return nil
}

// kept says in an error where the file is kept.
func (e *export) kept(err error) error {
	if err == nil || e.report.Kept == "" {
		return err
	}
	return fmt.Errorf("%w; the file is kept at %s", err, e.report.Kept)
}

// fill makes the file, verifies it as far as was asked, and returns its size.
func (e *export) fill(ctx context.Context, f *os.File, p product) (size int64, err error) {
	stats, err := p.make(ctx, f, e.Meter)
	if err != nil {
		return 0, err
	}
	e.report.add(stats)
	if e.Verify {
		src := &source{File: f, size: stats.Size}
		if e.report.SHA256, err = p.verify(ctx, src, e.Meter); err != nil {
			return 0, err
		}
	}
	return stats.Size, checkUnchanged(e.image)
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
	group.Go(func() error { return up.Send(ctx, src, sendLog{e.Meter}) })
	return sum, group.Wait()
}

// fillError names the place in an error of making the file, in place of one
// without a name; hint says what helps when it is full. One of the source says
// by itself where it is.
func fillError(place string, err error, hint string) error {
	if errors.Is(err, layers.ErrSource) {
		return err
	}
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathErr.Err
	}
	err = fmt.Errorf("%s: %w", place, err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = &cli.Error{Err: err, Hint: hint, Code: cli.ExitNoSpace}
	}
	return err
}
