package layers

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// At returns the disk as the given layer of the chain shows it: what it was
// when the layers above were not there yet. It reads the volumes of im, so im
// must be closed after it; its own Close only forgets what is cached of it.
func (im *Image) At(layer int) *Image {
	return &Image{
		layers:    im.layers[:layer+1],
		size:      im.layers[layer].Size(),
		cache:     im.cache,
		resolving: make(chan struct{}, maxResolving),
		borrowed:  true,
	}
}

// LayerNamed returns the index in [Image.Layers] of the layer that a user
// means: by its number, 0 being the base, by the path of its file, or by the
// file's name. A number wins over a file of that name. The error lists the
// layers.
func (im *Image) LayerNamed(name string) (int, error) {
	if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(im.layers) {
		return i, nil
	}
	if i := im.layerInFile(name); i >= 0 {
		return i, nil
	}
	found := -1
	for i, l := range im.layers {
		if filepath.Base(l.Path) != name {
			continue
		}
		if found >= 0 {
			return 0, im.noSuchLayer(fmt.Errorf("the layers %d and %d are both named %s", found, i, name))
		}
		found = i
	}
	if found < 0 {
		return 0, im.noSuchLayer(fmt.Errorf("the chain has no layer %q", name))
	}
	return found, nil
}

// layerInFile returns the index of the layer whose first file path leads to,
// or -1.
func (im *Image) layerInFile(path string) int {
	f, err := os.Stat(path)
	if err != nil {
		return -1
	}
	for i, l := range im.layers {
		if layer, err := os.Stat(l.Path); err == nil && os.SameFile(f, layer) {
			return i
		}
	}
	return -1
}

func (im *Image) noSuchLayer(err error) error {
	list := make([]string, len(im.layers))
	for i, l := range im.layers {
		list[i] = fmt.Sprintf("%d (%s)", i, l.Path)
	}
	return marked{withHint(err, "its layers are %s", strings.Join(list, ", ")), ErrOptions}
}
