package rig

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Kind of a [Write].
type Kind uint8

const (
	// Data writes bytes.
	Data Kind = iota
	// Zero writes zeros that hide what lower layers hold.
	Zero
	// Discard writes zeros and gives the space back.
	Discard
	// Compressed writes clusters compressed, once each; offset and length
	// must be multiples of the cluster size, save that a write may end at the
	// disk's end.
	Compressed
)

// Write is one write to a layer: Len bytes at Off, both in guest bytes.
type Write struct {
	Kind     Kind
	Off, Len int64
}

// Layer says how one volume of a chain is made.
type Layer struct {
	// Format under QEMU's name. Default: qcow2.
	Format string
	// Options of qemu-img create, comma separated: "cluster_size=4k". The
	// name in data_file=NAME is one in the image's folder.
	Options string
	// Size of the layer's disk in bytes. Default: that of the chain.
	Size   int64
	Writes []Write
}

// Chain says how the volumes of an image are made, base first. What it says is
// also what the image is expected to hold.
type Chain struct {
	// Name of the image. Default: disk. The volumes are NAME-0.FORMAT,
	// NAME-1.FORMAT and so on; the top is NAME.FORMAT.
	Name string
	// Size of the disk in bytes.
	Size int64
	// Seed makes contents differ between chains.
	Seed   uint64
	Layers []Layer
}

// Image is a chain on disk with what it is expected to hold.
type Image struct {
	// Dir holds the volumes.
	Dir string
	// Paths of the volumes, base first; Top is the last of them.
	Paths []string
	Top   string
	// Size of the flat disk in bytes.
	Size int64
	// Want is the content of the flat disk.
	Want *Content
	// Layers are the contents as each layer shows them, base first.
	Layers []*Content

	format string // of the top
	seed   uint64
	writes int // so far, over all layers
}

// Build makes the volumes in dir with qemu-img and qemu-io.
func (c Chain) Build(t T, dir string) *Image {
	t.Helper()
	im := &Image{Dir: dir, Want: &Content{}, seed: mix(c.Seed)}
	name := c.Name
	if name == "" {
		name = "disk"
	}
	for i, l := range c.Layers {
		base, baseFormat := im.Top, im.format
		im.format = l.Format
		if im.format == "" {
			im.format = "qcow2"
		}
		file := fmt.Sprintf("%s-%d.%s", name, i, im.format)
		if i == len(c.Layers)-1 {
			file = name + "." + im.format
		}
		im.Top = filepath.Join(dir, file)
		im.Paths = append(im.Paths, im.Top)
		im.Size = l.Size
		if im.Size == 0 {
			im.Size = c.Size
		}

		args := []string{"create", "-q", "-f", im.format}
		if l.Options != "" {
			// Absolute: QEMU takes the stored name of a data file relative to
			// its own working folder, not to the image.
			args = append(args, "-o", strings.Replace(l.Options, "data_file=", "data_file="+dir+"/", 1))
		}
		if base != "" {
			// Relative, so that the folder can be moved; -u, not to open the
			// whole chain below only to create a file.
			args = append(args, "-u", "-b", filepath.Base(base), "-F", baseFormat)
		}
		RunIn(t, dir, "qemu-img", append(args, file, fmt.Sprint(im.Size))...)

		im.Want = im.Want.resized(im.Size)
		im.Layers = append(im.Layers, im.Want)
		im.Write(t, l.Writes...)
	}
	return im
}

// writesPerRun keeps the command line of qemu-io within the kernel's limits.
const writesPerRun = 500

// Write writes to the top volume and changes Want. The Want from before stays
// valid, as that of a snapshot taken before.
func (im *Image) Write(t T, writes ...Write) {
	t.Helper()
	for len(writes) > 0 {
		n := min(len(writes), writesPerRun)
		im.write(t, writes[:n])
		writes = writes[n:]
	}
}

func (im *Image) write(t T, writes []Write) {
	t.Helper()
	patterns, err := os.MkdirTemp(im.Dir, ".patterns-")
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer os.RemoveAll(patterns)

	// Without flushes to the disk, which nobody needs here.
	args := []string{"-f", im.format, "-d", "unmap", "-t", "unsafe"}
	for i, w := range writes {
		im.writes++
		r := contentRun{from: w.Off, to: w.Off + w.Len, seed: mix(im.seed + uint64(im.writes))}
		command := "write -q"
		switch w.Kind {
		case Zero:
			command += " -z"
		case Discard:
			command += " -z -u"
		case Data, Compressed:
			r.mask = maskAll
			if w.Kind == Compressed {
				r.mask = maskCompressible
				command += " -c"
			}
			file := filepath.Join(filepath.Base(patterns), fmt.Sprint(i))
			if err := writePattern(filepath.Join(im.Dir, file), r); err != nil {
				t.Fatalf("%v", err)
			}
			command += " -s " + file
		}
		args = append(args, "-c", fmt.Sprintf("%s %d %d", command, w.Off, w.Len))
		im.Want = im.Want.written(r)
	}
	im.Layers[len(im.Layers)-1] = im.Want
	out := RunIn(t, im.Dir, "qemu-io", append(args, filepath.Base(im.Top))...)
	if out = strings.TrimSpace(out); out != "" {
		t.Fatalf("qemu-io on %s: %s", im.Top, out)
	}
}

// writePattern writes the bytes of r to a file.
func writePattern(path string, r contentRun) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	content := &Content{size: r.to, runs: []contentRun{r}}
	if _, err := io.CopyBuffer(onlyWriter{f}, io.NewSectionReader(content, r.from, r.to-r.from), make([]byte, 1<<20)); err != nil {
		return err
	}
	return f.Close()
}

// onlyWriter hides ReadFrom, which would ignore the buffer given to
// io.CopyBuffer.
type onlyWriter struct{ io.Writer }
