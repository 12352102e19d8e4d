// Package demo shows the program at work on a small image that it brings along.
//
// [Run] unpacks the image, an ext4 disk in three layers, to a temporary folder,
// and mounts, lists, maps, reads, exports and checks it there. Each command
// runs as a process of its own, just as it is typed; the demo only reads the
// mounted view, as any other program would. Nothing is left when it ends.
//
// Where there is no FUSE, the demo says so and reads the same disk through
// packages layers and convert.
package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flatimg/cmd/internal/cli"
)

// Run runs the demo and writes to out what it does. program is the path of the
// flatimg binary.
func Run(ctx context.Context, out io.Writer, program string) error {
	dir, err := os.MkdirTemp("", "flatimg-demo-")
	if err != nil {
		return err
	}
	d := &demo{ctx: ctx, out: out, program: program, dir: dir}
	err = d.steps()
	if cleanErr := d.cleanup(); err == nil {
		err = cleanErr
	}
	if err == nil {
		d.summary()
	}
	return err
}

const (
	diskName = "web" // the top layer is web.qcow2
	// stepLimit ends a command that hangs; each takes far less than a second.
	stepLimit = 30 * time.Second
)

// demo is one run.
type demo struct {
	ctx     context.Context
	out     io.Writer
	program string
	dir     string // of the run; commands run in it
	mounted bool
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format+"\n", args...) }

func (d *demo) path(elements ...string) string {
	return filepath.Join(append([]string{d.dir}, elements...)...)
}

// top is the path of the top layer.
func (d *demo) top() string { return d.path(diskName + ".qcow2") }

func (d *demo) steps() error {
	for _, step := range []func() error{
		d.unpack, d.mount, d.showViews, d.showMap, d.readFile, d.export, d.check,
	} {
		// A step that an interrupt has cut short fails for reasons that say
		// nothing to the user.
		if err := step(); d.ctx.Err() != nil {
			return d.ctx.Err()
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) unpack() error {
	entries, err := images.ReadDir("images")
	if err != nil {
		return err
	}
	d.say("A disk in %d layers:", len(entries))
	for _, e := range entries {
		content, err := images.ReadFile("images/" + e.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(d.path(e.Name()), content, 0o600); err != nil {
			return err
		}
		d.say("  %8s  %s", cli.FormatSize(int64(len(content))), e.Name())
	}
	return nil
}

// cleanup leaves neither mount nor files, even after an interrupt.
func (d *demo) cleanup() error {
	// Not under d.ctx, which an interrupt has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), stepLimit)
	defer cancel()
	var err error
	// Not asked of d.mounted: an interrupt can come when the mount is there,
	// but its command has not said so. And twice: Ctrl-C can hit unmount before
	// it has left the terminal's process group.
	for range 2 {
		if !isMount(d.path("mnt")) {
			return os.RemoveAll(d.dir)
		}
		_, err = d.flatimg(ctx, "unmount", "mnt")
	}
	if err != nil && isMount(d.path("mnt")) {
		return fmt.Errorf("%w; the demo's files are in %s", err, d.dir)
	}
	return os.RemoveAll(d.dir)
}

func (d *demo) summary() {
	how := "through the mount"
	if !d.mounted {
		how = "without a mount"
	}
	d.say(`
What happened:
  - The three layers were joined to one disk, without copying any of them.
  - It was read %s, as a raw and as a qcow2 file. Neither exists:
    each read was looked up in a map that says which layer has the newest data.
  - The export wrote the qcow2 file out, byte for byte the same.
  - All of it is removed again.
Try next, with an image of yours:
  flatimg info IMAGE
  flatimg mount IMAGE /mnt && ls -ls /mnt; flatimg unmount /mnt
  flatimg export --format qcow2 IMAGE copy.qcow2`, how)
}

// shorten returns the first n lines of text and says how many follow.
func shorten(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > n+1 {
		lines = append(lines[:n], fmt.Sprintf("… and %d more", len(lines)-n))
	}
	return "  " + strings.Join(lines, "\n  ")
}
