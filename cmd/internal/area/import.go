package area

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/progress"
	"flatimg/cmd/internal/servers"
	"flatimg/cmd/internal/servers/local"
	"flatimg/cmd/internal/servers/schemes"
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/convert"
	"flatimg/layers"
	"flatimg/layers/volume"
)

// ImportOptions say what is imported and where to.
type ImportOptions struct {
	// Source is a path or a URL.
	Source string
	// Image is the path of the image that is made; in a folder it gets the name
	// that it has at the source.
	Image string
	// Format of the image with its options. Default: what the extension of
	// Image names; where that is the source's own, or none, the file stays as
	// it is.
	Format string
	// Onto is the path of an image on which the new one is put: an overlay of
	// what differs from it. Empty: the new one stands for itself.
	Onto string
	// Open says how the source's image is opened.
	Open layers.Options
	// SHA256 is what the file must have; nil: any.
	SHA256 []byte
	// Force replaces an existing image.
	Force bool
	// Area is the directory into which the file is fetched.
	Area string
	// Resume refuses to begin anew.
	Resume bool
	// Server says how the server is reached.
	Server servers.Options
	// BandwidthLimit in bytes a second; 0: none.
	BandwidthLimit int64
	// Meter shows the progress; nil: nobody is interested.
	Meter *progress.Meter
}

// Import brings an image here. After an error nothing new is at its place, but
// perhaps what a later import of the same goes on with.
func Import(ctx context.Context, o ImportOptions) (_ *Report, err error) {
	begin := time.Now()
	defer o.Meter.Stop()
	im := &importer{ImportOptions: o, report: &Report{Import: true}, areaDir: Directory(o.Area)}
	im.Server.BandwidthLimit = o.BandwidthLimit
	if err := im.checkArguments(); err != nil {
		return nil, err
	}
	if local, ok := schemes.LocalPath(o.Source); ok {
		if o.Resume {
			return nil, cli.Usagef("%s: what is local is not fetched, there is nothing to resume", o.Source)
		}
		err = im.fromFile(ctx, local)
	} else {
		err = im.fromServer(ctx)
	}
	if err != nil {
		return nil, err
	}
	im.report.Took = time.Since(begin)
	return im.report, nil
}

// importer is one run of Import.
type importer struct {
	ImportOptions
	report  *Report
	areaDir string
	job     *job
	// local is the source if that is a file of this machine.
	local *volume.File
}

// checkArguments fails early when the image can't be made.
func (im *importer) checkArguments() error {
	if schemes.IsURL(im.Image) {
		return &cli.Error{
			Err:  fmt.Errorf("%s: an import makes a local image", im.Image),
			Hint: "flatimg export sends to a server",
			Code: cli.ExitUsage,
		}
	}
	if im.Format != "" {
		if _, err := convert.ParseSpec(im.Format); err != nil {
			return err
		}
	}
	if schemes.IsFolder(im.Image) {
		return nil // its name is known later
	}
	return im.checkPlace("")
}

// checkPlace fails when the image of a file called name can't be put to its
// place.
func (im *importer) checkPlace(name string) error {
	dest := im.Image
	if schemes.IsFolder(dest) && (im.Format != "" || im.Onto != "") {
		spec, err := convert.ParseSpec(cmp.Or(im.Format, "qcow2"))
		if err != nil {
			return err
		}
		dest = im.destination(spec, name)
	}
	up, err := im.target(dest, name)
	if err != nil {
		return err
	}
	return up.Close(false)
}

// target opens the place dest of the image; name is for a folder.
func (im *importer) target(dest, name string) (servers.Upload, error) {
	return schemes.Open(context.Background(), dest, servers.Options{Name: name, Force: im.Force})
}

// fromFile makes the image of a file of this machine.
func (im *importer) fromFile(ctx context.Context, path string) error {
	f, err := volume.OpenFile(path)
	if err != nil {
		return &cli.Error{Err: err, Code: cli.ExitSource}
	}
	defer f.Close()
	im.local = f
	if err := im.checkPlace(filepath.Base(path)); err != nil {
		return err
	}
	src := &source{File: f.OSFile(), size: f.Size()}
	if im.SHA256 != nil {
		im.Meter.Start("verifying", 0)
		sum, err := hashFile(ctx, src)
		if err != nil {
			return err
		}
		if err := im.checkAsked(path, sum); err != nil {
			return err
		}
		im.report.VerifiedBy = "--sha256"
	}
	return im.make(ctx, src, path, filepath.Base(path))
}

// fromServer fetches the file into the area and makes the image of it.
func (im *importer) fromServer(ctx context.Context) (err error) {
	if err := checkDirectory(im.areaDir); err != nil {
		return err
	}
	from, err := schemes.OpenSource(ctx, im.Source, im.Server)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := im.checkPlace(fileName(from)); err != nil {
		return err
	}
	if err := im.findJob(from); err != nil {
		return err
	}
	defer func() { err = im.end(err) }()
	src, err := im.fetch(ctx, from)
	if err != nil {
		return err
	}
	defer src.Close()
	return im.make(ctx, src, from.String(), fileName(from))
}

// request is what this import is to do. How the image is made afterwards does
// not matter for what is fetched. The query of a URL, which may be secret, is not
// in it: the version tells files from each other.
func (im *importer) request(from servers.Download) (Request, error) {
	image, err := filepath.Abs(im.Image)
	return Request{Import: true, Image: image, URL: from.String()}, err
}

// findJob takes up an earlier import of the same file, or makes a job.
func (im *importer) findJob(from servers.Download) error {
	request, err := im.request(from)
	if err != nil {
		return err
	}
	j, err := findJob(im.areaDir, request)
	if err != nil {
		return err
	}
	state := from.Version()
	if j != nil && j.resumable() && state != "" && j.record.Fingerprint == state && j.file(mainFile).Size == from.Size() {
		im.job = j
		return nil
	}
	if im.Resume {
		return errors.Join(&cli.Error{
			Err:  fmt.Errorf("%s: in area %s is no unfinished import of it that nobody works on, or it has changed since, or its server can't tell", from, im.areaDir),
			Hint: "without --resume the import begins anew",
			Code: cli.ExitRefused,
		}, closeJob(j))
	}
	if j != nil {
		if j.resumable() {
			im.Meter.Say(fmt.Sprintf("%s has changed since an import of it was interrupted, or its server can't tell: it begins anew", from))
		}
		if err := j.remove(); err != nil {
			return err
		}
	}
	o := im.Server
	im.job, err = newJob(im.areaDir, request, state, access{SSH: o.SSH, CACert: absolute(o.CACert), User: o.User, PasswordFile: absolute(o.PasswordFile)})
	if err != nil {
		return fillError("area "+im.areaDir, err, "--area DIR chooses another area")
	}
	return nil
}

// end closes the job: it is kept when a later run can go on with it.
func (im *importer) end(err error) error {
	isFinal := errors.Is(err, transfer.ErrDiffers) || errors.Is(err, errNotAsked)
	if err == nil || !im.job.resumable() || im.job.record.Fingerprint == "" || isFinal {
		return errors.Join(err, im.job.remove())
	}
	im.job.flush()
	im.Meter.Say("what was fetched is kept: the same command goes on with it, " + im.job.removal(im.Area) + " gives it up")
	return errors.Join(err, im.job.close())
}

// fetchedName is the name of the fetched file in the job's folder.
const fetchedName = "fetched"

// fetch fetches the file and verifies it.
func (im *importer) fetch(ctx context.Context, from servers.Download) (_ *source, err error) {
	f, err := os.OpenFile(im.job.path(fetchedName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	data, err := im.dataOf(ctx, from)
	if err != nil {
		return nil, err
	}
	if err := im.job.update(mainFile, true, func(r *fileRecord) {
		r.Name, r.Size, r.Data = fetchedName, from.Size(), max(data, 0)
	}); err != nil {
		return nil, err
	}
	job := fetch{
		from: from, file: f, job: im.job, meter: im.Meter, limiter: newLimiter(im.BandwidthLimit), retries: im.Server.Retries,
		lanes: lanes(from.Lanes(), im.Server.Connections), size: from.Size(), data: max(data, 0),
		whole: im.SHA256 != nil || from.Size()-data <= maxHoles,
	}
	var sum []byte
	if whole, ok := from.(servers.Fetcher); ok {
		sum, err = job.fetchWhole(ctx, whole)
	} else {
		sum, err = job.run(ctx)
	}
	im.report.Sent, im.report.Resumed = job.received.Load(), job.resumed
	if err != nil {
		return nil, fillError("area "+im.areaDir, err, "--area DIR chooses another area")
	}
	size, err := f.Seek(0, 2)
	if err != nil {
		return nil, err
	}
	src := &source{File: f, size: size}
	if err := im.checkAsked(from.String(), sum); err != nil {
		return nil, err
	}
	if im.report.VerifiedBy, err = job.checkSum(ctx, sum, size); err != nil {
		return nil, err
	}
	if im.SHA256 != nil {
		im.report.VerifiedBy = "--sha256"
	}
	im.report.SHA256 = sum
	return src, nil
}

func lanes(useful, most int) int {
	if most > 0 {
		useful = min(useful, most)
	}
	return max(useful, 1)
}

// dataOf returns how many bytes will come; -1: nobody knows. It fails when there
// is no room for them.
func (im *importer) dataOf(ctx context.Context, from servers.Download) (int64, error) {
	data := from.Size()
	if data >= 0 {
		var err error
		if data, err = dataBefore(ctx, from, data); err != nil {
			return 0, err
		}
		need := data - im.job.file(mainFile).Done
		if free, ok := local.FreeSpace(im.areaDir); ok && need > free {
			return 0, &cli.Error{
				Err:  fmt.Errorf("area %s: %w: %s needed, %s free", im.areaDir, unix.ENOSPC, cli.FormatSize(need), cli.FormatSize(free)),
				Hint: "--area DIR chooses another area",
				Code: cli.ExitNoSpace,
			}
		}
	}
	return data, nil
}

// errNotAsked says that a file has not the checksum that the user wants.
var errNotAsked = errors.New("not the file that --sha256 asks for")

// checkAsked compares the checksum of what people know as where with the one
// that was asked for.
func (im *importer) checkAsked(where string, sum []byte) error {
	if im.SHA256 == nil {
		return nil
	}
	if got, want := hex.EncodeToString(sum), hex.EncodeToString(im.SHA256); got != want {
		return &cli.Error{
			Err:  fmt.Errorf("%s: %w: its SHA-256 is %s, must be %s", where, errNotAsked, got, want),
			Hint: "get the file again from where it comes, or look where the checksum comes from",
			Code: cli.ExitServer,
		}
	}
	return nil
}
