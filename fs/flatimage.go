package fs

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"flatimg/convert"
	"flatimg/layers"
)

// linger is how long an image stays open when nobody uses it any more. Long
// enough for the next command of a script, short enough for who wants to start
// the image afterwards: until it is closed, QEMU may not write to it.
const linger = 2 * time.Second

// flatImage is an image in one state, opened while somebody uses it. The views
// of all target formats share it. Safe for concurrent use.
type flatImage struct {
	// Read only.
	chain   *chain
	options layers.Options
	formats []convert.Spec
	log     *slog.Logger

	// stale is set together with changed, for readers, who take no lock.
	stale atomic.Bool

	// Protected by mu.
	mu      sync.Mutex
	users   int
	im      *layers.Image
	targets map[targetKey]*lazyTarget // while im is open
	idle    *time.Timer
	// detached: no name leads here any more.
	detached bool
	// changed is the error after a file was overwritten in place.
	changed error
}

// targetKey names a target of an image.
type targetKey struct {
	format int // index of formats
	// name that the file records of itself; empty where the format has none.
	name string
}

// lazyTarget is laid out by its first user while others wait.
type lazyTarget struct {
	once   sync.Once
	target convert.Target
	err    error
}

// acquire returns the image in the format with the given index, as a file of
// that name. The caller must call release when it does not use the target any
// more.
func (f *flatImage) acquire(format int, name string) (convert.Target, error) {
	spec := f.formats[format].Named(name)
	lazy, im, err := f.use(targetKey{format, spec.Options["name"]})
	if err != nil {
		return nil, err
	}
	lazy.once.Do(func() { lazy.target, lazy.err = convert.New(im, spec) })
	if lazy.err != nil {
		f.release()
		return nil, lazy.err
	}
	return lazy.target, nil
}

// use opens the image unless it is open and counts one more user.
func (f *flatImage) use(key targetKey) (*lazyTarget, *layers.Image, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed != nil {
		return nil, nil, f.changed
	}
	if f.im == nil {
		im, err := f.open()
		if err != nil {
			return nil, nil, err
		}
		f.im = im
		f.targets = make(map[targetKey]*lazyTarget)
	}
	if f.targets[key] == nil {
		f.targets[key] = new(lazyTarget)
	}
	f.users++
	return f.targets[key], f.im, nil
}

// open opens the image in the state that the chain was found in.
func (f *flatImage) open() (*layers.Image, error) {
	im, err := layers.Open(f.chain.path, f.options)
	if err != nil {
		return nil, err
	}
	files, err := chainFiles(im)
	if err == nil && !slices.Equal(files, f.chain.files) {
		err = fmt.Errorf("%s or a volume below it has %w", f.chain.path, errChanged)
	}
	if err != nil {
		im.Close()
		return nil, err
	}
	return im, nil
}

// release ends a use.
func (f *flatImage) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users--
	if f.users > 0 {
		return
	}
	if f.detached {
		f.close()
		return
	}
	if f.idle == nil {
		f.idle = time.AfterFunc(linger, f.closeIdle)
	} else {
		f.idle.Reset(linger)
	}
}

// closeIdle closes the image if nobody uses it.
func (f *flatImage) closeIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users == 0 {
		f.close()
	}
}

// detach makes the image close as soon as nobody uses it.
func (f *flatImage) detach() {
	f.mu.Lock()
	f.detached = true
	f.mu.Unlock()
	f.closeIdle()
}

// close must be called with mu held.
func (f *flatImage) close() {
	if f.idle != nil {
		f.idle.Stop()
	}
	if f.im == nil {
		return
	}
	if err := f.im.Close(); err != nil {
		f.log.Warn("closing an image", "path", f.chain.path, "err", err)
	}
	f.im, f.targets = nil, nil
}

// check looks whether a file of the open image was overwritten in place; from
// then on all uses are errors. It returns whether the image is open.
func (f *flatImage) check() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.im == nil || f.changed != nil {
		return f.im != nil
	}
	files, err := chainFiles(f.im)
	for i, file := range files {
		if !f.chain.files[i].state.sameData(file.state) {
			err = fmt.Errorf("%s: %s has %w", f.chain.path, file.path, errChanged)
			break
		}
	}
	if err != nil {
		f.changed = err
		f.stale.Store(true)
		f.log.Error("who has the image open gets errors", "err", err)
	}
	return true
}
