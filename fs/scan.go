package fs

import (
	"errors"
	"io"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"flatimg/layers"
)

// retryAfter is how long an image that could not be opened is left alone while
// its file does not change. What stands in the way may lie elsewhere: a backing
// file, a lock.
const retryAfter = 2 * time.Second

// qcow2Magic begins each qcow2 file (specification, "Header").
const qcow2Magic = "QFI\xfb"

// scanner finds the images of the sources. What it finds out about a file is
// kept until the file changes. Not safe for concurrent use.
type scanner struct {
	sources   []string
	allLayers bool
	options   layers.Options
	// refuseDev is the device number of the mount itself, when it is known:
	// a file there can't be a source.
	refuseDev uint64

	files  map[string]*scannedFile
	chains map[string]*chain
}

// scannedFile is what is known about a candidate.
type scannedFile struct {
	state   fingerprint
	isImage bool
	// backingPath as its header has it, resolved; empty if there is none.
	backingPath string
	// retry is when it is to be looked at again though it has not changed.
	retry time.Time

	// backing identifies the file at backingPath, as of this scan.
	backing fileID
}

// foundImage is an image that is to be shown.
type foundImage struct {
	// source is the index of the source that it was found in.
	source int
	// chain is the same pointer as long as nothing has changed.
	chain *chain
}

// candidate is a file that may be an image to be shown.
type candidate struct {
	source int
	path   string
	file   *scannedFile
}

// scan returns the images of all sources, and an error for each path that
// should be one but is not.
func (s *scanner) scan() ([]foundImage, map[string]error) {
	problems := make(map[string]error)
	var found []foundImage
	seen := make(map[string]bool)
	files := make(map[string]*scannedFile, len(s.files))
	for i, source := range s.sources {
		candidates := s.candidates(i, source, problems)
		for _, c := range candidates {
			files[c.path] = c.file
		}
		for _, c := range s.shown(candidates) {
			if seen[c.path] {
				continue // two sources lead here, or two chains share the layer
			}
			seen[c.path] = true
			if c.err != nil {
				problems[c.path] = c.err
				continue
			}
			found = append(found, foundImage{source: i, chain: c})
		}
	}
	s.files = files
	for path := range s.chains {
		if !seen[path] {
			delete(s.chains, path)
		}
	}
	return found, problems
}

// candidates returns the image files of a source in order of path.
func (s *scanner) candidates(index int, source string, problems map[string]error) []candidate {
	state, err := statPath(source)
	if err != nil {
		problems[source] = sourceError{&os.PathError{Op: "open", Path: source, Err: err}}
		return nil
	}
	if !state.isDir() {
		file := s.examine(source, state, true, s.optionsFor(source, index))
		return []candidate{{index, source, file}}
	}
	if state.id.dev == s.refuseDev {
		problems[source] = sourceError{errors.New("the source is hidden by the mount itself")}
		return nil
	}
	entries, err := os.ReadDir(source)
	if err != nil {
		problems[source] = sourceError{err}
	}
	var list []candidate
	for _, e := range entries {
		name := e.Name()
		isFile := e.Type().IsRegular() || e.Type()&iofs.ModeSymlink != 0
		if strings.HasPrefix(name, ".") || !isFile {
			continue
		}
		path := filepath.Join(source, name)
		_, named := stem(name)
		state, err := statPath(path)
		if err != nil {
			// ENOENT is a file that has just gone, or a link to nowhere.
			if named && (e.Type()&iofs.ModeSymlink != 0 || !errors.Is(err, unix.ENOENT)) {
				problems[path] = sourceError{&os.PathError{Op: "open", Path: path, Err: err}}
			}
			continue
		}
		if !state.isRegular() || state.id.dev == s.refuseDev {
			continue
		}
		if file := s.examine(path, state, named, s.optionsFor(path, index)); file.isImage {
			list = append(list, candidate{index, path, file})
		}
	}
	return list
}

// examine finds out whether a file is an image and what it is backed by.
func (s *scanner) examine(path string, state fingerprint, isImage bool, options layers.Options) *scannedFile {
	f := s.files[path]
	if f == nil || f.state != state || !f.retry.IsZero() && time.Now().After(f.retry) {
		f = &scannedFile{state: state, isImage: isImage || hasQcow2Magic(path)}
		if f.isImage {
			// An image that can't be probed is taken as a top: opening it
			// will tell why.
			summary, err := layers.Probe(path, options)
			if err != nil {
				f.retry = time.Now().Add(retryAfter)
			}
			f.backingPath = summary.Backing
		}
	}
	f.backing = fileID{}
	if f.backingPath != "" {
		if backing, err := statPath(f.backingPath); err == nil {
			f.backing = backing.id
		}
	}
	return f
}

func hasQcow2Magic(path string) bool {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [len(qcow2Magic)]byte
	_, err = io.ReadFull(f, magic[:])
	return err == nil && string(magic[:]) == qcow2Magic
}

// shown returns the chains that get views: those of the tops, with allLayers
// also those of all that they are backed by.
func (s *scanner) shown(candidates []candidate) []*chain {
	var chains []*chain
	for _, top := range findTops(candidates, s.fileIDs) {
		c := s.chain(top.path, s.optionsFor(top.path, top.source))
		if s.allLayers && c.err == nil {
			for _, l := range c.layers[:len(c.layers)-1] {
				// As recorded above it, not probed: a guest may have written
				// another format's header to a raw disk. And with the folders
				// of the chain that it is a layer of.
				options := s.options
				options.Format = l.format
				options.AllowDirs = append(slices.Clone(s.options.AllowDirs), filepath.Dir(top.path))
				chains = append(chains, s.chain(l.path, options))
			}
		}
		chains = append(chains, c)
	}
	return chains
}

// fileIDs returns the files that the chain of a candidate really has, or nil if
// it can't be opened.
func (s *scanner) fileIDs(c candidate) []fileID {
	chain := s.chain(c.path, s.optionsFor(c.path, c.source))
	if chain.err != nil {
		return nil
	}
	ids := make([]fileID, len(chain.files))
	for i, f := range chain.files {
		ids[i] = f.state.id
	}
	return ids
}

// optionsFor returns the options for opening a candidate of a source. The
// format that the user has given is that of sources that are images.
func (s *scanner) optionsFor(path string, source int) layers.Options {
	options := s.options
	if path != s.sources[source] {
		options.Format = ""
	}
	return options
}

// findTops returns the candidates that no other one is backed by. What a
// header says about its backing file does not count where the chain, opened,
// has other files (fileIDs): what a guest has written to a raw disk must not
// hide an image. Without that, files backed by one another in a circle would
// have no top; they are all returned, for the error that opening them gives.
func findTops(candidates []candidate, fileIDs func(candidate) []fileID) []candidate {
	byID := make(map[fileID]*scannedFile, len(candidates))
	isBacking := make(map[fileID]bool)
	for _, c := range candidates {
		byID[c.file.state.id] = c.file
		if c.file.backing != c.file.state.id {
			isBacking[c.file.backing] = true
		}
	}
	covered := make(map[fileID]bool)
	cover := func(c candidate) {
		if ids := fileIDs(c); ids != nil {
			for _, id := range ids {
				covered[id] = true
			}
			return
		}
		walked := make(map[fileID]bool)
		for f := c.file; f != nil && !walked[f.state.id]; f = byID[f.backing] {
			walked[f.state.id], covered[f.state.id] = true, true
		}
	}
	isTop := func(c candidate) bool { return !isBacking[c.file.state.id] }
	for _, c := range candidates {
		if isTop(c) {
			cover(c)
		}
	}
	return slices.DeleteFunc(slices.Clone(candidates), func(c candidate) bool {
		return !isTop(c) && covered[c.file.state.id]
	})
}

// chain returns what is known about the image whose top is at path, and looks
// again if one of its files has changed.
func (s *scanner) chain(path string, options layers.Options) *chain {
	c := s.chains[path]
	if c != nil && c.options.Format == options.Format && c.upToDate() {
		return c
	}
	found := examineChain(path, options, s.refuseDev)
	if c != nil && c.options.Format == options.Format && c.hasWriter() && c.sameAs(found) {
		c.checked = found.checked
		return c
	}
	s.chains[path] = found
	return found
}
