package fs

import (
	"errors"
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

	// changed is the error after a file was overwritten in place: from then on
	// all uses are errors. For readers, who take no lock.
	changed atomic.Pointer[changeError]
	// detached: no name leads here any more.
	detached atomic.Bool
	// current is set while the image is open.
	current atomic.Pointer[openImage]
	// past are the statistics of when it was open before.
	past atomic.Pointer[imageStats]

	// Protected by mu, which is held while the image is being opened.
	mu    sync.Mutex
	users int
	idle  *time.Timer

	// Protected by catalog.mu.
	views []*viewNode // all that there ever were
	// spoiled: the kernel was told to drop what it has cached of the views.
	spoiled bool
}

// openImage is an image while it is open.
type openImage struct {
	*layers.Image
	watch   *watch
	targets map[targetKey]*lazyTarget // protected by flatImage.mu
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
func (f *flatImage) acquire(format int, name string) (convert.Target, *openImage, error) {
	spec := f.formats[format].Named(name)
	lazy, im, err := f.use(targetKey{format, spec.Options["name"]})
	if err != nil {
		return nil, nil, err
	}
	// Before the layout, for an image that was open already, and after it, as
	// it reads metadata.
	err = f.verify(im.watch.verifyAll())
	if err == nil {
		lazy.once.Do(func() { lazy.target, lazy.err = convert.New(im.Image, spec) })
		if err = f.verify(im.watch.verifyAll()); err == nil {
			err = lazy.err
		}
	}
	if err != nil {
		f.release()
		return nil, nil, err
	}
	return lazy.target, im, nil
}

// use opens the image unless it is open and counts one more user.
func (f *flatImage) use(key targetKey) (*lazyTarget, *openImage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.changed.Load(); err != nil {
		return nil, nil, err
	}
	im := f.current.Load()
	if im == nil {
		var err error
		if im, err = f.open(); err != nil {
			return nil, nil, err
		}
		f.current.Store(im)
	}
	if im.targets[key] == nil {
		im.targets[key] = new(lazyTarget)
	}
	f.users++
	return im.targets[key], im, nil
}

// open opens the image in the state that the chain was found in.
func (f *flatImage) open() (*openImage, error) {
	im, err := layers.Open(f.chain.path, f.options)
	if err != nil {
		return nil, err
	}
	files, err := chainFiles(im)
	if err == nil && !slices.EqualFunc(f.chain.files, files, chainFile.sameAs) {
		err = &changeError{image: f.chain.path, file: "one of its files", seen: time.Now(), err: errChanged}
	}
	if err != nil {
		im.Close()
		return nil, err
	}
	f.log.Debug("opened an image", "image", f.chain.path, "layers", len(f.chain.layers))
	return &openImage{im, newWatch(f.chain.path, im, files), make(map[targetKey]*lazyTarget)}, nil
}

// release ends a use.
func (f *flatImage) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users--
	if f.users > 0 {
		return
	}
	// What a writer changes is read anew by the next user.
	if f.detached.Load() || f.chain.hasWriter() {
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

// detach makes the image close as soon as nobody uses it. It does not wait for
// one that is being opened, whose user will find it detached.
func (f *flatImage) detach() {
	f.detached.Store(true)
	if f.mu.TryLock() {
		defer f.mu.Unlock()
		if f.users == 0 {
			f.close()
		}
	}
}

// close must be called with mu held.
func (f *flatImage) close() {
	if f.idle != nil {
		f.idle.Stop()
	}
	stats := f.stats()
	im := f.current.Swap(nil)
	if im == nil {
		return
	}
	stats.Map.Entries, stats.Map.Bytes = 0, 0
	stats.Clusters.Entries, stats.Clusters.Bytes = 0, 0
	f.past.Store(&stats)
	if err := im.Close(); err != nil {
		f.log.Warn("closing an image", "image", f.chain.path, "err", err)
	}
	f.log.Debug("closed an image", "image", f.chain.path)
}

// isOpen says whether the image is open.
func (f *flatImage) isOpen() bool { return f.current.Load() != nil }

// check looks whether a file of the open image was overwritten in place. Its
// result says whether one was, now or before.
func (f *flatImage) check() bool {
	if f.changed.Load() == nil && f.mu.TryLock() {
		defer f.mu.Unlock() // so that nobody closes it meanwhile
		if im := f.current.Load(); im != nil {
			f.verify(im.watch.verifyAll())
		}
	}
	return f.changed.Load() != nil
}

// verify remembers and logs err, a result of a watch, if it is the first.
func (f *flatImage) verify(err error) error {
	if err == nil {
		return nil
	}
	changed, ok := errors.AsType[*changeError](err)
	if !ok {
		return err
	}
	if f.changed.CompareAndSwap(nil, changed) {
		f.log.Error("who has the image open gets errors", "image", changed.image, "layer", changed.layer, "err", changed)
	}
	return f.changed.Load()
}

// imageStats are the statistics of an image.
type imageStats struct {
	// Map is about the regions of 64 MiB of the offset map, Clusters about
	// inflated clusters.
	Map      layers.CacheStats `json:"map"`
	Clusters layers.CacheStats `json:"clusters"`
}

// stats of the image since it is known. It takes no lock.
func (f *flatImage) stats() imageStats {
	var s imageStats
	if past := f.past.Load(); past != nil {
		s = *past
	}
	if im := f.current.Load(); im != nil {
		maps, clusters := im.Stats()
		s.Map, s.Clusters = sum(s.Map, maps), sum(s.Clusters, clusters)
	}
	return s
}

func sum(a, b layers.CacheStats) layers.CacheStats {
	return layers.CacheStats{Hits: a.Hits + b.Hits, Misses: a.Misses + b.Misses, Entries: a.Entries + b.Entries, Bytes: a.Bytes + b.Bytes}
}
