package fs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// newControl returns the control directory of a mount on dir.
func newControl(c *catalog, dir string, o Options) *controlNode {
	file := func(name string, ino uint64, text func() string) *textNode {
		return &textNode{name: name, ino: ino, attr: c.attr, text: text}
	}
	return &controlNode{attr: c.attr, files: []*textNode{
		file("errors", errorsIno, c.errorText),
		file("pid", pidIno, func() string { return fmt.Sprintln(os.Getpid()) }),
		file("status", statusIno, func() string { return c.statusText(dir, o.Sources) }),
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
		if v.failure != nil {
			all[v.key.String()] = v.failure
		}
	}
	list := make([]brokenImage, 0, len(all))
	for _, path := range slices.Sorted(maps.Keys(all)) {
		list = append(list, brokenImage{path, all[path].Error()})
	}
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

// status is the content of .flatimg/status.
type status struct {
	PID        int           `json:"pid"`
	Mountpoint string        `json:"mountpoint"`
	Sources    []string      `json:"sources"`
	Views      []viewStatus  `json:"views"`
	Errors     []brokenImage `json:"errors"`
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
}

// layerStatus describes a volume.
type layerStatus struct {
	Path   string `json:"path"`
	Format string `json:"format"`
}

func (c *catalog) statusText(dir string, sources []string) string {
	s := status{PID: os.Getpid(), Mountpoint: dir, Sources: sources, Views: []viewStatus{}, Errors: c.errorList()}
	views, _ := c.list()
	for _, v := range views {
		view := viewStatus{
			Name:     v.name,
			Format:   c.formats[v.format].String(),
			Snapshot: v.key.snapshot,
		}
		for _, l := range v.key.chain.layers {
			view.Chain = append(view.Chain, layerStatus{l.path, l.format})
		}
		if size := v.size.Load(); size >= 0 {
			view.Size = &size
		}
		s.Views = append(s.Views, view)
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic("fs: internal error: " + err.Error())
	}
	return string(text) + "\n"
}
