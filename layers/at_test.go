package layers

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What a layer shows is what the chain would be if that were the top.
func TestAt(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 0))
	for range 30 {
		var volumes []*fakeVolume
		for range 1 + rng.IntN(5) {
			volumes = append(volumes, randomVolume(rng, 1+rng.IntN(40)))
		}
		im := fakeImage(volumes...)
		for i := range volumes {
			at, alone := im.At(i), fakeImage(volumes[:i+1]...)
			got := collect(t, at)
			if want := collect(t, alone); at.Size() != alone.Size() || !slices.Equal(got, want) {
				t.Fatalf("layer %d shows\n%v, alone it is\n%v", i, got, want)
			}
			if err := at.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if at := im.At(0); len(at.Layers()) != 1 || len(im.Layers()) != len(volumes) {
			t.Fatalf("%d layers at the base, %d in all", len(at.Layers()), len(im.Layers()))
		}
	}
}

func collect(t *testing.T, im *Image) []Extent {
	t.Helper()
	var extents []Extent
	for e, err := range im.Extents(0, MaxLength) {
		if err != nil {
			t.Fatal(err)
		}
		extents = append(extents, e)
	}
	return extents
}

func TestLayerNamed(t *testing.T) {
	dir := t.TempDir()
	im := &Image{}
	for _, name := range []string{"base.raw", "2", "a/same.qcow2", "b/same.qcow2", "top.qcow2"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		im.layers = append(im.layers, Layer{Path: path})
	}
	if err := os.Symlink(filepath.Join(dir, "2"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{
		"0": 0, "4": 4, "2": 2, // the number, not the file
		"base.raw": 0, "top.qcow2": 4,
		dir + "/2": 1, dir + "/a/../2": 1, dir + "/link": 1, dir + "/b/same.qcow2": 3,
		"5": -1, "-1": -1, "": -1, "same.qcow2": -1, "other": -1, dir: -1,
	} {
		got, err := im.LayerNamed(name)
		if want >= 0 {
			if err != nil || got != want {
				t.Errorf("%q is layer %d, %v, want %d", name, got, err, want)
			}
			continue
		}
		hinted, ok := errors.AsType[hintedError](err)
		if !ok || !errors.Is(err, ErrOptions) || !strings.Contains(hinted.Hint(), "3 ("+dir+"/b/same.qcow2)") {
			t.Errorf("%q: %d, %v", name, got, err)
		}
	}
}
