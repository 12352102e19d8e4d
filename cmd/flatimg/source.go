package main

import (
	"errors"
	"strings"

	"github.com/spf13/pflag"

	"flatimg/layers"
)

// sourceOptions are the values of the flags that say how images are opened.
type sourceOptions struct {
	format           string
	allowDirs        []string
	maxDepth         int
	mapMemory        sizeFlag
	ignoreTruncation bool
	parents          parentsFlag
	searchDirs       []string
	forceShare       bool
}

// sourceFlags adds those flags, which all verbs that open images have.
func sourceFlags(flags *pflag.FlagSet) *sourceOptions {
	o := &sourceOptions{mapMemory: layers.DefaultMapBytes}
	flags.StringVar(&o.format, "source-format", "", "take the source for this `FORMAT` (raw or qcow2) in place of probing it")
	flags.StringArrayVar(&o.allowDirs, "allow-dir", nil, "follow paths stored in images (backing and data files) into `DIR`, too; may be repeated")
	flags.Var(&o.parents, "parent", "`RECORDED=FILE`: open FILE where an image names the backing or data file RECORDED; may be repeated")
	flags.StringArrayVar(&o.searchDirs, "search-dir", nil, "look in `DIR` for backing and data files that are not where the image says; may be repeated")
	flags.BoolVarP(&o.forceShare, "force-share", "U", false, "open images that another process writes to; what is read may be a mix of states")
	flags.IntVar(&o.maxDepth, "max-depth", layers.DefaultMaxDepth, "refuse chains of more than `N` volumes")
	flags.Var(&o.mapMemory, "map-memory", "keep offset maps in at most this `SIZE` of memory")
	flags.BoolVar(&o.ignoreTruncation, "ignore-truncation", false, "read as zeros what an image that was cut off lacks")
	return o
}

// snapshotFlag adds the flag for an internal snapshot.
func snapshotFlag(flags *pflag.FlagSet) *string {
	return flags.String("snapshot", "", "take the internal snapshot with this `NAME` or ID in place of the current state")
}

// layers returns the options for [layers.Open], with one cache for all images
// that are opened with them.
func (o *sourceOptions) layers() layers.Options {
	return layers.Options{
		Format:           o.format,
		AllowDirs:        o.allowDirs,
		Parents:          o.parents,
		SearchDirs:       o.searchDirs,
		ForceShare:       o.forceShare,
		MaxDepth:         o.maxDepth,
		IgnoreTruncation: o.ignoreTruncation,
		Cache:            layers.NewCache(int64(o.mapMemory), 0),
	}
}

// parentsFlag is a flag value that maps recorded paths to those to open.
type parentsFlag map[string]string

func (p *parentsFlag) String() string { return "" }
func (p *parentsFlag) Type() string   { return "path=path" }

func (p *parentsFlag) Set(text string) error {
	recorded, file, ok := strings.Cut(text, "=")
	if !ok || recorded == "" || file == "" {
		return errors.New("write it as RECORDED=FILE")
	}
	if *p == nil {
		*p = make(parentsFlag)
	}
	(*p)[recorded] = file
	return nil
}
