package layers

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"flatimg/layers/volume"
)

// Open opens the chain whose top is the file at path, which may be relative.
// Errors wrap [ErrSource], and [ErrRefused] where a flag would allow it.
func Open(path string, opts Options) (*Image, error) {
	im, err := open(path, opts)
	if err != nil {
		return nil, sourceError(err)
	}
	return im, nil
}

func open(path string, opts Options) (*Image, error) {
	o, err := newOpener(path, opts)
	if err != nil {
		return nil, err
	}
	o.locks = true
	im := &Image{cache: o.opts.Cache, resolving: make(chan struct{}, maxResolving)}
	if im.layers, err = o.chain(path); err != nil {
		return nil, err
	}
	im.size = im.layers[len(im.layers)-1].Size()
	return im, nil
}

// Summary is what [Probe] finds out about an image.
type Summary struct {
	// Format of the top volume.
	Format string
	// Size of the guest disk in bytes.
	Size int64
	// Backing is the path of the volume below, resolved but not opened;
	// empty where there is none.
	Backing string
	// Snapshots are the internal snapshots of the top volume.
	Snapshots []volume.Snapshot
}

// Probe looks at the top volume of a chain only.
func Probe(path string, opts Options) (Summary, error) {
	s, err := probeTop(path, opts)
	return s, sourceError(err)
}

func probeTop(path string, opts Options) (Summary, error) {
	o, err := newOpener(path, opts)
	if err != nil {
		return Summary{}, err
	}
	file, err := o.openTop(path)
	if err != nil {
		return Summary{}, err
	}
	layer, err := o.volume(file, o.opts.Format, o.opts.Snapshot)
	if err != nil {
		file.Close()
		return Summary{}, err
	}
	defer layer.Close()
	s := Summary{Format: layer.Format(), Size: layer.Size()}
	if d, ok := layer.Volume.(volume.Describer); ok {
		s.Snapshots = d.Info().Snapshots
	}
	if layer.Backing != "" {
		s.Backing, err = resolveStored(path, layer.Backing)
	}
	return s, err
}

// opener opens the volumes of one chain.
type opener struct {
	opts    Options
	trusted *trusted
	// locks says whether files are marked as being read.
	locks bool
	// written are the files that another process writes to.
	written map[*volume.File]bool
}

func newOpener(path string, opts Options) (*opener, error) {
	if err := opts.validate(); err != nil {
		return nil, marked{err, ErrOptions}
	}
	t, err := newTrusted(path, opts.AllowDirs)
	if err != nil {
		return nil, err
	}
	return &opener{opts: opts, trusted: t, written: make(map[*volume.File]bool)}, nil
}

// fileID tells two names of one file.
type fileID struct{ dev, ino uint64 }

// chain opens the volumes from the top at path down to the base and returns
// them base first.
func (o *opener) chain(path string) (chain []Layer, err error) {
	defer func() {
		if err != nil {
			for _, l := range chain {
				l.Close()
			}
			chain = nil
		}
	}()
	file, err := o.openTop(path)
	if err != nil {
		return nil, err
	}
	seen := make(map[fileID]string)
	format, snapshot := o.opts.Format, o.opts.Snapshot
	for {
		id, err := identify(file)
		if err != nil {
			file.Close()
			return chain, err
		}
		if other, ok := seen[id]; ok {
			file.Close()
			return chain, withHint(fmt.Errorf("the chain loops: %s is backed by %s, which is above it as %s", chain[0].Path, file.Path(), other),
				"qemu-img rebase -u -b FILE -F FORMAT %s records another backing file", chain[0].Path)
		}
		seen[id] = file.Path()
		layer, err := o.volume(file, format, snapshot)
		if err != nil {
			file.Close()
			return chain, err
		}
		chain = append([]Layer{layer}, chain...)
		if layer.Backing == "" {
			return chain, nil
		}
		if len(chain) == o.opts.MaxDepth {
			return chain, withHint(marked{fmt.Errorf("%s: the chain has more than %d volumes", path, o.opts.MaxDepth), ErrRefused},
				"--max-depth N allows more")
		}
		if file, err = o.openStored(layer.Path, layer.Backing); err != nil {
			return chain, err
		}
		format, snapshot = layer.BackingFormat, ""
		if given, ok := o.opts.ParentFormats[file.Path()]; ok {
			format = given
		}
	}
}

// volume opens the volume in file, of the named format or of a probed one. On
// an error the caller keeps the file.
func (o *opener) volume(file *volume.File, name, snapshot string) (Layer, error) {
	f := formatNamed(name)
	if name == "" {
		var err error
		if f, err = probe(file); err != nil {
			return Layer{}, err
		}
	} else if f == nil {
		return Layer{}, fmt.Errorf("%s: %w", file.Path(), unsupportedFormat(name))
	}
	v, err := f.open(file, openContext{
		snapshot:         snapshot,
		ignoreTruncation: o.opts.IgnoreTruncation,
		openStored: func(name string) (*volume.File, error) {
			return o.openStored(file.Path(), name)
		},
	})
	if errors.Is(err, volume.ErrNotThisFormat) {
		return Layer{}, fmt.Errorf("%s: not a %s image", file.Path(), f.name)
	}
	if err != nil {
		return Layer{}, err
	}
	layer := Layer{Volume: v, Path: file.Path()}
	layer.HasWriter = slices.ContainsFunc(v.Files(), func(f *volume.File) bool { return o.written[f] })
	if b, ok := v.(backed); ok {
		layer.Backing, layer.BackingFormat = b.Backing()
	}
	return layer, nil
}

// backed is implemented by volumes of formats that can name a backing file.
type backed interface {
	Backing() (name, format string)
}

func identify(file *volume.File) (fileID, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(file.Fd(), &st); err != nil {
		return fileID{}, &os.PathError{Op: "stat", Path: file.Path(), Err: err}
	}
	return fileID{uint64(st.Dev), st.Ino}, nil
}
