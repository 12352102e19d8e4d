package area

import (
	"cmp"
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

	"golang.org/x/time/rate"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/schemes"
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
	// Stream sends the target as it is computed, and makes no file of it in an
	// area. Not for compressed targets.
	Stream bool
	// Resume refuses to begin anew: there must be an earlier export to go on
	// with. Without it, one is gone on with where that is possible.
	Resume bool
	// Since names a layer: the target is a qcow2 with only what layers above it
	// have changed, and this layer as its backing file. Empty: the whole disk.
	Since string
	// VirtualSize of the target in bytes; 0: that of the image.
	VirtualSize int64
	// DropZeros reads all data first and leaves out what is zeros. A packed
	// target does so in any case.
	DropZeros bool
	// Verify compares the file with the view before it is published, and reads
	// back what was sent.
	Verify bool
	// Server says how the server is reached, and what is replaced there; its
	// Name and Resume are not used.
	Server servers.Options
	// BandwidthLimit in bytes a second; 0: none.
	BandwidthLimit int64
	// Meter shows the progress; nil: nobody is interested.
	Meter *progress.Meter
}

// Export exports an image. After an error nothing new is at the destination,
// but perhaps what a later export of the same goes on with.
func Export(ctx context.Context, o Options) (_ *Report, err error) {
	begin := time.Now()
	if o.Since != "" {
		o.Format = cmp.Or(o.Format, "qcow2")
	}
	spec, err := targetSpec(o.Format, o.Dest)
	if err != nil {
		return nil, err
	}
	spec.VirtualSize = o.VirtualSize
	if err := o.validate(spec); err != nil {
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
	defer o.Meter.Stop()

	e := &export{Options: o, image: im, spec: spec, report: &Report{}, areaDir: Directory(o.Area), limiter: newLimiter(o.BandwidthLimit)}
	e.Server.BandwidthLimit = o.BandwidthLimit
	if err := e.findJob(ctx); err != nil {
		return nil, err
	}
	defer func() { err = e.end(ctx, err) }()
	if err := e.run(ctx, name); err != nil {
		return nil, err
	}
	e.report.Took = time.Since(begin)
	return e.report, nil
}

// validate refuses what can't be done together.
func (o Options) validate(spec convert.Spec) error {
	_, isLocal := schemes.LocalPath(o.Dest)
	switch {
	case o.Stream && o.Keep:
		return cli.Usagef("--stream makes no file in the area that --keep-area could keep")
	case o.Stream && spec.Packed():
		return &cli.Error{
			Err:  fmt.Errorf("target format %s can't be streamed: its size is not known before it is compressed", spec),
			Hint: "without --stream it is made in the area first",
			Code: cli.ExitUsage,
		}
	case o.Area != "" || o.Keep || !isLocal:
		return checkDirectory(Directory(o.Area))
	}
	return nil
}

// export is one run of Export.
type export struct {
	Options
	image   *layers.Image
	spec    convert.Spec
	report  *Report
	areaDir string
	limiter *rate.Limiter
	job     *job // nil until something needs one

	// opened are all uploads; they are closed at the end.
	opened []opened
}

// opened is an upload of the file with that role, and how it was opened.
type opened struct {
	servers.Upload
	role, dest, name string
}

// mainFile is the role of the file that DEST names; companions have their
// suffix.
const mainFile = "main"

// run makes and sends all files, and publishes them.
func (e *export) run(ctx context.Context, name string) error {
	up, err := e.open(ctx, e.Dest, name, mainFile)
	if err != nil {
		return err
	}
	main, companions, err := e.products(ctx, up)
	if err != nil {
		return err
	}
	var publish []servers.Upload // in this order
	for _, c := range companions {
		beside, err := e.openCompanion(ctx, up, c)
		if err != nil {
			return err
		}
		publish = append(publish, beside)
		if err := e.place(ctx, beside, c); err != nil {
			return err
		}
	}
	if err := e.place(ctx, up, main); err != nil {
		return err
	}
	e.Meter.Start("publishing", 0)
	for _, u := range append(publish, up) {
		if err := u.Publish(ctx); err != nil {
			return e.kept(err)
		}
	}
	e.report.Dest = up.String()
	return nil
}

// open opens the destination of the file with that role; what an earlier run
// has sent of it is gone on with.
func (e *export) open(ctx context.Context, dest, name, role string) (servers.Upload, error) {
	o := e.Server
	o.Name = name
	if e.job != nil {
		o.Resume = e.job.file(role).State
	}
	up, err := schemes.Open(ctx, dest, o)
	if err != nil {
		return nil, err
	}
	e.opened = append(e.opened, opened{up, role, dest, name})
	return up, nil
}

// fileName is the name that a file has, or will have, at a server: one that is
// no path, whatever the server says.
func fileName(at fmt.Stringer) string {
	if n, ok := at.(servers.Namer); ok && n.FileName() != "" {
		return path.Base(n.FileName())
	}
	return path.Base(at.String())
}

// products returns what is to be made: the file itself and its companions.
func (e *export) products(ctx context.Context, up servers.Upload) (main product, companions []product, err error) {
	name := fileName(up)
	spec := e.spec.Named(name)
	disk := convert.Disk(e.image)
	if e.DropZeros && !spec.Packed() {
		e.Meter.Start("looking for zeros", 0)
		if disk, err = convert.DropZeros(ctx, disk, e.Meter.Add); err != nil {
			return product{}, nil, err
		}
	}
	if e.Since != "" {
		m, err := e.delta(disk, up)
		return product{mainFile, name, m}, nil, err
	}
	if spec.Packed() {
		return product{mainFile, name, packedDisk(disk, spec)}, nil, nil
	}
	target, err := convert.New(disk, spec)
	if err != nil {
		return product{}, nil, err
	}
	for _, c := range convert.Companions(target) {
		companions = append(companions, product{c.Suffix, convert.Stem(name, spec) + c.Suffix, laidOut{c.Target}})
	}
	return product{mainFile, name, laidOut{target}}, companions, nil
}

// openCompanion opens the destination, beside that of up, for a companion.
func (e *export) openCompanion(ctx context.Context, up servers.Upload, p product) (servers.Upload, error) {
	dest := e.Dest // of a server, and a folder
	if local, ok := up.(servers.Local); ok {
		dest = filepath.Join(local.Dir(), p.name)
		if err := checkNotSource(e.image, dest, p.name); err != nil {
			return nil, err
		}
	} else if folder, last := path.Split(dest); isEscaped(last, path.Base(up.String())) {
		dest = folder + url.PathEscape(p.name)
	}
	beside, err := e.open(ctx, dest, p.name, p.role)
	if err != nil {
		return nil, err
	}
	if want := path.Join(path.Dir(up.String()), p.name); path.Clean(beside.String()) != path.Clean(want) {
		return nil, cli.Usagef("%s: its companion would be %s, not %s: end DEST with the name of a file or with a slash", up, beside, want)
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
	local, isLocal := up.(servers.Local)
	if isLocal && !e.Keep && (e.Area == "" || sameFileSystem(e.Area, local.Dir())) {
		return e.makeThere(ctx, local, p)
	}
	expected, err := p.expected()
	if err != nil {
		return err
	}
	if err := e.check(ctx, up, expected.Size, expected.Data); err != nil {
		return err
	}
	if err := e.needJob(); err != nil {
		return err
	}
	// What goes to a device of this machine is not made twice.
	_, isHere := schemes.LocalPath(e.Dest)
	if e.Stream || isHere && !isLocal && !e.Keep && e.Area == "" && !e.spec.Packed() {
		return e.stream(ctx, up, p, expected)
	}
	return e.makeAndSend(ctx, up, p)
}

// check asks the upload whether its server will take the file.
func (e *export) check(ctx context.Context, up servers.Upload, size, data int64) error {
	c, ok := up.(servers.Checker)
	if !ok {
		return nil
	}
	subformat := e.spec.Options["subformat"]
	return c.Check(ctx, servers.File{
		Format: e.spec.Format, Subformat: subformat, Size: size, Data: data, VirtualSize: max(e.image.Size(), e.VirtualSize),
		// A fixed vhd has a footer only; a stream's grain directory is found by one.
		ReadFromEnd: e.spec.Format == "vhd" && subformat == "fixed" || subformat == "streamOptimized",
	})
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

// makeAndSend makes the file in an area, unless an earlier run has made it, and
// sends it from there.
func (e *export) makeAndSend(ctx context.Context, up servers.Upload, p product) error {
	f := e.job.made(p.role)
	if f == nil {
		var err error
		if f, err = e.make(ctx, p); err != nil {
			return err
		}
	} else {
		r := e.job.file(p.role)
		e.report.add(Stats{Size: r.Size, Data: r.Data})
	}
	defer f.Close()
	r := e.job.file(p.role)
	if e.spec.Packed() { // its size is known only now
		if err := e.check(ctx, up, r.Size, r.Data); err != nil {
			return err
		}
	}
	if e.Keep {
		e.report.Kept = f.Name()
	}
	src := &source{File: f, size: r.Size}
	return e.kept(e.transfer(ctx, up, p.role, src, src, r.Data))
}

// make makes the file in the area.
func (e *export) make(ctx context.Context, p product) (_ *os.File, err error) {
	f, err := e.job.create(p.name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	stats, err := e.fill(ctx, f, p)
	if err != nil {
		return nil, fillError("area "+e.areaDir, err, "--area DIR chooses another area")
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return f, e.job.update(p.role, true, func(r *fileRecord) {
		r.Name, r.Size, r.Data, r.Made = p.name, stats.Size, stats.Data, fi.ModTime().UnixNano()
	})
}

// stream sends a product as it is computed.
func (e *export) stream(ctx context.Context, up servers.Upload, p product, expected Stats) error {
	target := p.maker.(laidOut).Target
	sent, hashed := &view{Target: target}, &view{Target: target}
	defer sent.close()
	defer hashed.close()
	e.report.add(expected)
	if err := e.transfer(ctx, up, p.role, sent, hashed, expected.Data); err != nil {
		return err
	}
	return checkUnchanged(e.image)
}

// kept says in an error where the file is kept.
func (e *export) kept(err error) error {
	if err == nil || e.report.Kept == "" {
		return err
	}
	return fmt.Errorf("%w; the file is kept at %s", err, e.report.Kept)
}

// fill makes the file and verifies it as far as was asked.
func (e *export) fill(ctx context.Context, f *os.File, p product) (Stats, error) {
	stats, err := p.make(ctx, f, e.Meter)
	if err != nil {
		return stats, err
	}
	e.report.add(stats)
	if e.Verify {
		src := &source{File: f, size: stats.Size}
		if e.report.SHA256, err = p.verify(ctx, src, e.Meter); err != nil {
			return stats, err
		}
		e.report.VerifiedBy = "compared with the view"
	}
	return stats, checkUnchanged(e.image)
}

// fillError names the place in an error of making the file, in place of one
// without a name; hint says what helps when it is full. One of the source, or of
// a server, says by itself where it is.
func fillError(place string, err error, hint string) error {
	if code := cli.ExitCode(err); code == cli.ExitSource || code == cli.ExitServer {
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
