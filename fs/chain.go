package fs

import (
	"fmt"
	"slices"
	"time"

	"flatimg/layers"
	"flatimg/layers/volume"
)

// chain is what is known about an image without having it open. Read only.
type chain struct {
	path    string
	options layers.Options
	// top is the state of the file at path, zero if there is none.
	top fingerprint
	// err says why the image can't be shown. The rest is valid without it.
	err error
	// checked is when it was examined; used by the scanner only.
	checked time.Time

	// files are all files of all volumes, base first.
	files []chainFile
	// layers are the volumes, base first.
	layers    []chainLayer
	size      int64 // in bytes
	modTime   time.Time
	snapshots []volume.Snapshot
}

// chainLayer is a volume of a chain.
type chainLayer struct {
	path, format string
	// hasWriter: another process writes to it.
	hasWriter bool
}

// chainFile is a file that a chain has its data in.
type chainFile struct {
	path  string
	state fingerprint
	// hasWriter is that of its layer. Its state then says nothing.
	hasWriter bool
}

// sameAs says whether two looks at a file have found nothing that spoils what
// was read from it.
func (f chainFile) sameAs(now chainFile) bool {
	if f.hasWriter || now.hasWriter {
		return f.path == now.path && f.state.id == now.state.id
	}
	return f == now
}

// examineChain opens the image at path to see whether it can be shown. It keeps
// nobody from writing to it: a virtual machine may start at this moment.
// refuseDev is a device on which no file of it may lie; 0: none.
func examineChain(path string, options layers.Options, refuseDev uint64) *chain {
	c := &chain{path: path, options: options, checked: time.Now()}
	top, err := statPath(path)
	if err != nil {
		c.err = sourceError{fmt.Errorf("%s: %w", path, err)}
		return c
	}
	c.top = top
	// Before Open, which would wait for this process to answer.
	if inside := findOn(refuseDev, path, options); inside != "" {
		c.err = sourceError{fmt.Errorf("%s: %s lies in this mount, which can't show itself", path, inside)}
		return c
	}
	options.Peek = true
	im, err := layers.Open(path, options)
	if err != nil {
		c.err = err
		return c
	}
	defer im.Close()
	if c.files, err = chainFiles(im); err != nil {
		c.err = err
		return c
	}
	for _, l := range im.Layers() {
		c.layers = append(c.layers, chainLayer{l.Path, l.Format(), l.HasWriter})
	}
	c.size, c.modTime = im.Size(), im.ModTime()
	volumes := im.Layers()
	if d, ok := volumes[len(volumes)-1].Volume.(volume.Describer); ok {
		c.snapshots = d.Info().Snapshots
	}
	return c
}

// findOn returns the first file of a chain that lies on the device dev, from
// the top down, or an empty string.
func findOn(dev uint64, path string, options layers.Options) string {
	for seen := make(map[fileID]bool); dev != 0 && path != ""; {
		state, err := statPath(path)
		if err != nil || seen[state.id] {
			return ""
		}
		if state.id.dev == dev {
			return path
		}
		seen[state.id] = true
		summary, err := layers.Probe(path, options)
		if err != nil {
			return ""
		}
		path, options.Format = summary.Backing, ""
	}
	return ""
}

// chainFiles returns the files that an open image has its data in.
func chainFiles(im *layers.Image) ([]chainFile, error) {
	var files []chainFile
	for _, l := range im.Layers() {
		for _, f := range l.Files() {
			state, err := statFd(f.Fd())
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.Path(), err)
			}
			files = append(files, chainFile{f.Path(), state, l.HasWriter})
		}
	}
	return files, nil
}

// upToDate says whether what is known can be kept. What another process has to
// do with the image is looked at again now and then.
func (c *chain) upToDate() bool {
	isRecent := time.Since(c.checked) < retryAfter
	if c.err != nil {
		top, _ := statPath(c.path)
		return top == c.top && isRecent
	}
	return c.isCurrent() && (isRecent || !c.hasWriter())
}

// isCurrent says whether the paths still lead to the files in their states.
func (c *chain) isCurrent() bool {
	return !slices.ContainsFunc(c.files, func(f chainFile) bool {
		state, err := statPath(f.path)
		return err != nil || !f.sameAs(chainFile{f.path, state, f.hasWriter})
	})
}

// hasWriter says whether another process writes to a layer.
func (c *chain) hasWriter() bool {
	return slices.ContainsFunc(c.layers, func(l chainLayer) bool { return l.hasWriter })
}

// sameAs says whether c, a chain that had a writer, is shown as it is now when
// now is what another look has found.
func (c *chain) sameAs(now *chain) bool {
	return c.err == nil && now.err == nil && c.size == now.size &&
		slices.Equal(c.layers, now.layers) &&
		slices.EqualFunc(c.files, now.files, chainFile.sameAs) &&
		slices.Equal(c.snapshots, now.snapshots)
}
