package fs

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
)

// newControl returns the control directory of a mount.
func newControl(c *catalog, status func() Status) *controlNode {
	file := func(name string, ino uint64, text func() string) *textNode {
		return &textNode{name: name, ino: ino, attr: c.attr, text: text}
	}
	indented := func() string {
		text, err := json.MarshalIndent(status(), "", "  ")
		if err != nil {
			panic("fs: internal error: " + err.Error())
		}
		return string(text) + "\n"
	}
	return &controlNode{attr: c.attr, files: []*textNode{
		file("errors", errorsIno, c.errorText),
		file("pid", pidIno, func() string { return fmt.Sprintln(os.Getpid()) }),
		file("status", statusIno, indented),
	}}
}

// brokenImage is an image that has no view, or whose view can't be read.
type brokenImage struct {
	Path  string `json:"path"`
	Error string `json:"error"`
}

// errorList returns all broken images in order of path.
func (c *catalog) errorList() []brokenImage {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := maps.Clone(c.problems)
	for _, v := range c.views {
		if v.failure != nil && !errors.Is(v.failure, errChanged) {
			all[v.key.String()] = v.failure
		}
	}
	list := make([]brokenImage, 0, len(all))
	for path, err := range all {
		list = append(list, brokenImage{path, err.Error()})
	}
	// Beside what is wrong with the image now.
	for _, image := range c.allImages() {
		if err := image.changed.Load(); err != nil && image.isOpen() {
			list = append(list, brokenImage{image.chain.path, err.Error()})
		}
	}
	slices.SortFunc(list, func(a, b brokenImage) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Error, b.Error))
	})
	return list
}

// errorText is one line for each broken image: "path: reason".
func (c *catalog) errorText() string {
	var b strings.Builder
	oneLine := strings.NewReplacer("\n", " ")
	for _, e := range c.errorList() {
		// Most errors begin with the path by themselves.
		text := strings.TrimPrefix(e.Error, e.Path+": ")
		fmt.Fprintln(&b, oneLine.Replace(e.Path+": "+text))
	}
	return b.String()
}

// Status is what a mount tells about itself in .flatimg/status, as JSON.
type Status struct {
	PID        int          `json:"pid"`
	Mountpoint string       `json:"mountpoint"`
	Sources    []string     `json:"sources"`
	Views      []viewStatus `json:"views"`
	// Errors are those of images that can't be shown or read at the moment.
	Errors []brokenImage `json:"errors"`
	// Cache is that of all images together.
	Cache imageStats `json:"cache"`
	// Goroutines of the server; some more than there are requests under way.
	Goroutines int `json:"goroutines"`
}

// viewStatus describes a view.
type viewStatus struct {
	Name   string `json:"name"`
	Format string `json:"format"` // with its options
	// Snapshot is the ID of an internal snapshot.
	Snapshot string `json:"snapshot,omitempty"`
	// Size of the file in bytes; absent until it is known.
	Size *int64 `json:"size,omitempty"`
	// Chain has the volumes, base first.
	Chain []layerStatus `json:"chain"`
	// Open says whether the image is open at the moment.
	Open bool `json:"open"`
	// The statistics are those of the image, for all its views together.
	imageStats
	// Reads that were answered, and their bytes. What the kernel has cached
	// does not come here.
	Reads     int64 `json:"reads"`
	BytesRead int64 `json:"bytes-read"`
	// Errors of opening and reading, and the last of them.
	Errors    int64  `json:"errors"`
	LastError string `json:"last-error,omitempty"`
}

// layerStatus describes a volume.
type layerStatus struct {
	Path   string `json:"path"`
	Format string `json:"format"`
	// Writer: another process writes to it.
	Writer bool `json:"writer,omitempty"`
}

// status returns the status of the mount on dir.
func (c *catalog) status(dir string) Status {
	s := Status{
		PID: os.Getpid(), Mountpoint: dir, Sources: c.scanner.sources, Views: []viewStatus{},
		Errors: c.errorList(), Goroutines: runtime.NumGoroutine(),
	}
	s.Cache.Map, s.Cache.Clusters = c.scanner.options.Cache.Stats()
	views, _ := c.list()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range views {
		s.Views = append(s.Views, c.viewStatus(v))
	}
	return s
}

// viewStatus must be called with mu held.
func (c *catalog) viewStatus(v *viewNode) viewStatus {
	s := viewStatus{
		Name:       v.name,
		Format:     c.formats[v.format].String(),
		Snapshot:   v.key.snapshot,
		Open:       v.image.isOpen(),
		imageStats: v.image.stats(),
		Reads:      v.reads.Load(),
		BytesRead:  v.bytesRead.Load(),
		Errors:     v.failures,
	}
	for _, l := range v.key.chain.layers {
		s.Chain = append(s.Chain, layerStatus{l.path, l.format, l.hasWriter})
	}
	if size := v.size.Load(); size >= 0 {
		s.Size = &size
	}
	if v.lastError != nil {
		s.LastError = v.lastError.Error()
	}
	return s
}
