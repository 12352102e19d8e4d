package fs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"flatimg/convert"
)

// errNoName says that the naming rules leave no name for a view.
var errNoName = errors.New("its view can't be named: the name would be too long or that of another view")

const (
	// pollEvery is the time between two looks at the sources.
	pollEvery = time.Second
	// pollShare keeps polling of very many images to 1/pollShare of a core.
	pollShare = 20
	// scanWait is how long a request waits for a scan. A scan that takes
	// longer reads a slow file system, or this mount through a link.
	scanWait = 2 * time.Second
	// firstViewIno is the inode number of the first view; nodes with fixed
	// numbers have smaller ones.
	firstViewIno = 16
)

// catalog knows the views there are. Safe for concurrent use.
type catalog struct {
	// Read only.
	formats  []convert.Spec
	suffixes []string
	log      *slog.Logger
	scanner  *scanner // used by one scan at a time
	attr     ownership
	directIO bool
	zeroFile int                // reads as zeros; -1: there is none
	requests chan chan struct{} // closed when a scan that began later is done
	soon     chan struct{}      // asks for a scan that nobody waits for

	// Protected by mu.
	mu     sync.Mutex
	views  map[string]*viewNode
	images map[imageKey]*flatImage // those that a name leads to
	// old are images to which no name leads, but which may still be open.
	old  []*flatImage
	inos map[string]uint64 // of all names there ever were
	made uint64            // number of nodes made so far
	// problems are why images are not shown, by path.
	problems map[string]error
	changed  time.Time // when names last changed
}

// imageKey names a flat image in one state.
type imageKey struct {
	chain *chain
	// snapshot is the ID of an internal snapshot, or empty.
	snapshot string
}

func newCatalog(o Options) *catalog {
	formats := uniqueFormats(o.Formats)
	return &catalog{
		formats:  formats,
		suffixes: formatSuffixes(formats),
		log:      o.Log,
		scanner: &scanner{
			sources:   o.Sources,
			allLayers: o.AllLayers,
			options:   o.Layers,
			chains:    make(map[string]*chain),
		},
		attr:     newOwnership(o.AllowOther),
		directIO: o.DirectIO,
		requests: make(chan chan struct{}),
		soon:     make(chan struct{}, 1),
		views:    make(map[string]*viewNode),
		inos:     make(map[string]uint64),
		problems: make(map[string]error),
	}
}

// outdated are views of which the kernel must drop what it knows.
type outdated struct {
	// names do not lead to these views any more.
	names []*viewNode
	// contents of these may be a mix of two states.
	contents []*viewNode
}

// run scans until ctx is done. It calls drop with what is outdated.
func (c *catalog) run(ctx context.Context, drop func(outdated)) {
	pause := pollEvery
	for {
		var waiting []chan struct{}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-c.soon:
		case done := <-c.requests:
			waiting = append(waiting, done)
		}
		for more := true; more; {
			select {
			case done := <-c.requests:
				waiting = append(waiting, done)
			default:
				more = false
			}
		}
		began := time.Now()
		old := c.refresh()
		for _, done := range waiting {
			close(done)
		}
		if len(old.names)+len(old.contents) > 0 {
			drop(old)
		}
		pause = max(pollEvery, pollShare*time.Since(began))
	}
}

// wait returns when the sources have been scanned, or after scanWait.
func (c *catalog) wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, scanWait)
	defer cancel()
	done := make(chan struct{})
	select {
	case c.requests <- done:
		select {
		case <-done:
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
}

// hurry makes the next scan begin soon.
func (c *catalog) hurry() {
	select {
	case c.soon <- struct{}{}:
	default:
	}
}

// refresh scans the sources and takes over what has changed. It returns what
// the kernel does not know of that yet.
func (c *catalog) refresh() outdated {
	found, problems := c.scanner.scan()
	wanted, unnamed := c.plan(found)
	maps.Copy(problems, unnamed)

	c.mu.Lock()
	c.logProblems(problems)
	c.problems = problems
	names, detached := c.replace(wanted)
	c.old = append(c.old, detached...)
	all := c.allImages()
	c.mu.Unlock()

	// Without mu, as a file may be on a slow disk.
	for _, image := range detached {
		image.detach()
	}
	all = slices.DeleteFunc(all, func(image *flatImage) bool { return !image.check() })

	c.mu.Lock()
	defer c.mu.Unlock()
	c.old = slices.DeleteFunc(c.old, func(image *flatImage) bool { return !image.isOpen() })
	return outdated{names, spoil(all)}
}

// allImages returns those that a name leads to and the old ones.
func (c *catalog) allImages() []*flatImage {
	return slices.AppendSeq(slices.Clone(c.old), maps.Values(c.images))
}

// spoil returns the views that the kernel knows of images that have changed. It
// does so once for each.
func spoil(changed []*flatImage) []*viewNode {
	var views []*viewNode
	for _, image := range changed {
		if image.spoiled {
			continue
		}
		image.spoiled = true
		for _, v := range image.views {
			if v.shown {
				views = append(views, v)
			}
		}
	}
	return views
}

// logProblems logs what is new in problems and what is no more.
func (c *catalog) logProblems(problems map[string]error) {
	for path, err := range problems {
		if before := c.problems[path]; before == nil || before.Error() != err.Error() {
			c.log.Warn("an image is not shown", "path", path, "err", err)
		}
	}
	for path := range c.problems {
		if problems[path] == nil {
			c.log.Info("an image has recovered or is gone", "path", path)
		}
	}
}

// String is what the key's errors are listed under.
func (k imageKey) String() string {
	if k.snapshot == "" {
		return k.chain.path
	}
	return k.chain.path + "@" + k.snapshot
}

// plannedView is a view as a scan wants it.
type plannedView struct {
	key    imageKey
	format int
	// size of the flat image in bytes; -1: known only when it is open.
	size int64
	file viewFile
}

// plan returns the views of the images by name, and an error for each image
// that has views for which there is no name.
func (c *catalog) plan(found []foundImage) (map[string]plannedView, map[string]error) {
	var views []plannedView
	var wishes []nameWish
	problems := make(map[string]error)
	for _, f := range found {
		add := func(key imageKey, label string, size int64) {
			for format, suffix := range c.suffixes {
				if grown := c.formats[format].VirtualSize; grown > 0 && grown < size {
					problems[key.String()] = fmt.Errorf("a virtual size of %d bytes would cut off its disk, which has %d", grown, size)
					continue
				}
				views = append(views, plannedView{key: key, format: format, size: size})
				wishes = append(wishes, nameWish{filepath.Base(f.chain.path), f.source + 1, label, suffix})
			}
		}
		add(imageKey{chain: f.chain}, "", f.chain.size)
		for i, label := range snapshotLabels(f.chain.snapshots) {
			add(imageKey{f.chain, f.chain.snapshots[i].ID}, label, -1)
		}
	}
	wanted := make(map[string]plannedView, len(views))
	for i, name := range assignNames(wishes) {
		if name == "" {
			v := views[i]
			problems[v.key.String()] = errNoName
			continue
		}
		views[i].file.main = name
		wanted[name] = views[i]
	}
	c.planCompanions(views, wanted, problems)
	return wanted, problems
}

// planCompanions adds the companions of the views to those that are wanted. The
// names of others come first.
func (c *catalog) planCompanions(views []plannedView, wanted map[string]plannedView, problems map[string]error) {
	for _, v := range views {
		if v.file.main == "" {
			continue
		}
		spec := c.formats[v.format]
		for i, suffix := range spec.CompanionSuffixes() {
			name := convert.Stem(v.file.main, spec) + suffix
			if _, taken := wanted[name]; taken || len(name) > nameMax {
				problems[v.key.String()] = errNoName
				continue
			}
			v.file.companion = i + 1
			wanted[name] = v
		}
	}
}

// replace makes the views those that are wanted, and keeps the nodes of those
// that have not changed. It returns the replaced ones that the kernel knows,
// and the images to which no name leads any more.
func (c *catalog) replace(wanted map[string]plannedView) (dropped []*viewNode, detached []*flatImage) {
	images := make(map[imageKey]*flatImage)
	views := make(map[string]*viewNode, len(wanted))
	for name, w := range wanted {
		image := cmp.Or(images[w.key], c.images[w.key])
		if image == nil {
			options := w.key.chain.options
			options.Snapshot = w.key.snapshot
			image = &flatImage{chain: w.key.chain, options: options, formats: c.formats, log: c.log}
			c.logWriters(w.key.chain)
		}
		images[w.key] = image
		if v := c.views[name]; v != nil && v.image == image && v.format == w.format && v.file == w.file {
			views[name] = v
			continue
		}
		views[name] = c.newView(name, image, w)
		c.log.Debug("a view appears, or has changed", "view", name, "image", w.key)
		c.changed = time.Now()
	}
	for name, v := range c.views {
		if views[name] == v {
			continue
		}
		if views[name] == nil {
			c.log.Debug("a view is gone", "view", name)
		}
		c.changed = time.Now()
		if v.shown {
			dropped = append(dropped, v)
		}
	}
	for key, image := range c.images {
		if images[key] == nil {
			detached = append(detached, image)
		}
	}
	c.views, c.images = views, images
	return dropped, detached
}

// newView returns a node. A name has the same inode number each time that it
// appears.
func (c *catalog) newView(name string, image *flatImage, w plannedView) *viewNode {
	ino := c.inos[name]
	if ino == 0 {
		ino = firstViewIno + uint64(len(c.inos))
		c.inos[name] = ino
	}
	c.made++
	v := &viewNode{catalog: c, name: name, ino: ino, generation: c.made, image: image, key: w.key, format: w.format, file: w.file}
	image.views = append(image.views, v)
	v.size.Store(-1)
	v.allocated.Store(-1)
	if c.formats[w.format].Format == "raw" {
		v.size.Store(w.size)
	}
	return v
}

// lookup returns the view with a name, or nil.
func (c *catalog) lookup(name string) *viewNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.views[name]
	if v != nil {
		v.shown = true
	}
	return v
}

// list returns all views in order of name, and when names last changed.
func (c *catalog) list() ([]*viewNode, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	views := slices.SortedFunc(maps.Values(c.views), func(a, b *viewNode) int { return cmp.Compare(a.name, b.name) })
	return views, c.changed
}

// note remembers how opening or reading a view went, and logs an error when it
// is a new one.
func (c *catalog) note(v *viewNode, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	isNew := err != nil && (v.failure == nil || v.failure.Error() != err.Error())
	// That a file has changed is logged where it is seen.
	if isNew && !errors.Is(err, errChanged) {
		c.log.Error("a view can't be read", "view", v.name, "image", v.key, "err", err)
	}
	v.failure = err
	if err != nil {
		v.failures++
		v.lastError = err
	}
}

// logWriters says which layers of an image change while they are read.
func (c *catalog) logWriters(chain *chain) {
	for _, l := range chain.layers {
		if l.hasWriter {
			c.log.Warn("another process writes to a layer: what is read may be a mix of states", "image", chain.path, "layer", l.path)
		}
	}
}
