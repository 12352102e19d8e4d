package fs

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"flatimg/layers"
	"flatimg/layers/volume"
)

const (
	// checkEvery is the time between two looks at all files of an image while
	// it is read.
	checkEvery = 5 * time.Millisecond
	// checkEveryFile lengthens it for chains of many files: a look at a file
	// takes about a microsecond, so that all looks stay below 2 % of a core.
	checkEveryFile = 50 * time.Microsecond
)

// errChanged is wrapped by errors about a volume that was changed while views
// of it were open.
var errChanged = errors.New("changed while it was mounted")

// watch sees whether a file of an open image is written to. Those of a layer
// that had a writer when it was opened are left out, as the user has asked for
// a layer that changes. Safe for concurrent use.
type watch struct {
	// Read only.
	path   string // of the image
	image  *layers.Image
	files  []*watchedFile
	byFile map[*volume.File]*watchedFile
	every  time.Duration
	began  time.Time

	// The last look at all files: image.Loads just before it, and the time
	// since began.
	loads   atomic.Int64
	checked atomic.Int64
}

// watchedFile is a file and its state when the image was opened.
type watchedFile struct {
	file  *volume.File
	layer string // path of the layer
	state fingerprint
	// checked is when the last look at it began, since watch.began.
	checked atomic.Int64
}

// newWatch watches the files of image, which were found to be in these states.
func newWatch(path string, image *layers.Image, files []chainFile) *watch {
	w := &watch{path: path, image: image, byFile: make(map[*volume.File]*watchedFile), began: time.Now()}
	i := 0
	for _, l := range image.Layers() {
		for _, f := range l.Files() {
			if !l.HasWriter {
				watched := &watchedFile{file: f, layer: l.Path, state: files[i].state}
				w.files = append(w.files, watched)
				w.byFile[f] = watched
			}
			i++
		}
	}
	w.every = max(checkEvery, time.Duration(len(w.files))*checkEveryFile)
	return w
}

// verify says whether what was just read, which is made of the segments, is of
// the state in which the image was opened. It looks at the files that the bytes
// come from. The others count only when metadata was read, or by and by: as
// long as nothing is read from them they can't have spoiled anything.
func (w *watch) verify(segments []layers.Segment) error {
	now := int64(time.Since(w.began))
	if w.loads.Load() != w.image.Loads() || now-w.checked.Load() > int64(w.every) {
		return w.verifyAll()
	}
	var last *volume.File
	for i := range segments {
		s := &segments[i]
		if s.Origin != layers.InFile || s.File == last {
			continue
		}
		last = s.File
		// Somebody else's look will do, if it began after our reading.
		if f := w.byFile[last]; f != nil && f.checked.Load() < now {
			if err := w.look(f); err != nil {
				return err
			}
		}
	}
	return nil
}

// verifyAll looks at all files.
func (w *watch) verifyAll() error {
	loads, now := w.image.Loads(), int64(time.Since(w.began))
	for _, f := range w.files {
		if err := w.look(f); err != nil {
			return err
		}
	}
	w.loads.Store(loads)
	w.checked.Store(now)
	return nil
}

// look compares a file with what it was.
func (w *watch) look(f *watchedFile) error {
	now := int64(time.Since(w.began))
	state, err := statFd(f.file.Fd())
	if err == nil && !f.state.sameData(state) {
		err = errChanged
	}
	if err != nil {
		return &changeError{image: w.path, layer: f.layer, file: f.file.Path(), seen: time.Now(), err: err}
	}
	f.checked.Store(now)
	return nil
}

// changeError says which file of an image has changed, or can't be looked at
// any more, and when that was seen.
type changeError struct {
	image, layer, file string
	seen               time.Time
	err                error
}

func (e *changeError) Error() string {
	what := "has " + e.err.Error()
	if !errors.Is(e.err, errChanged) {
		what = "is out of reach: " + e.err.Error()
	}
	return fmt.Sprintf("%s: %s %s, seen at %s", e.image, e.file, what, e.seen.Format(time.RFC3339))
}

// Unwrap makes it an errChanged, too, when the file is out of reach.
func (e *changeError) Unwrap() []error { return []error{errChanged, e.err} }
