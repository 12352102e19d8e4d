package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"flatimg/cmd/internal/cli"
)

// flatimg runs the program in the demo's folder and returns what it prints.
func (d *demo) flatimg(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, d.program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, &stdout, &stderr
	// Ctrl-C at a terminal reaches a whole process group; it must not reach
	// the unmount that follows it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// The commands clean up after themselves when they are interrupted.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		reason, _, _ := strings.Cut(stderr.String(), "\n")
		return "", fmt.Errorf("flatimg %s: %w: %s", args[0], err, strings.TrimPrefix(reason, "flatimg: error: "))
	}
	return stdout.String(), nil
}

// run runs the program and shows the command as it is typed.
func (d *demo) run(args ...string) (string, error) {
	d.say("\n$ flatimg %s", strings.Join(args, " "))
	return d.flatimg(d.ctx, args...)
}

func (d *demo) mount() error {
	if err := os.Mkdir(d.path("mnt"), 0o700); err != nil {
		return err
	}
	if err := fuseUsable(); err != nil {
		d.say("\nNo mount: %v. The rest works without one.", err)
		return nil
	}
	if _, err := d.run("mount", "--format", "raw", "--format", "qcow2", filepath.Base(d.top()), "mnt"); err != nil {
		d.say("No mount: %v. The rest works without one.", err)
		return nil
	}
	d.mounted = true
	return nil
}

// isMount says whether something is mounted at the folder, alive or not.
func isMount(folder string) bool {
	var at, above syscall.Stat_t
	switch err := syscall.Stat(folder, &at); {
	case errors.Is(err, syscall.ENOENT):
		return false
	case err != nil:
		return true // the server of the mount is gone
	}
	return syscall.Stat(filepath.Dir(folder), &above) == nil && at.Dev != above.Dev
}

// fuseUsable says why this user can't mount FUSE file systems here.
func fuseUsable() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	f.Close()
	if os.Geteuid() == 0 {
		return nil
	}
	_, err = exec.LookPath("fusermount3")
	return err
}

func (d *demo) showViews() error {
	if !d.mounted {
		return nil
	}
	d.say("\n$ ls -ls mnt")
	entries, err := os.ReadDir(d.path("mnt"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil {
			return err
		}
		held := fi.Sys().(*syscall.Stat_t).Blocks * 512
		d.say("  %8s held, size %8s  %s", cli.FormatSize(held), cli.FormatSize(fi.Size()), e.Name())
	}
	return nil
}

func (d *demo) showMap() error {
	table, err := d.run("map", filepath.Base(d.top()))
	if err != nil {
		return err
	}
	d.say("%s", shorten(table, 6))
	return nil
}

// readFile reads a file that each layer has changed.
func (d *demo) readFile() error {
	const name = "etc/motd"
	var texts []string
	for _, layer := range []string{diskName + "-base", diskName} {
		v, err := d.view(layer, "raw")
		if err != nil {
			return err
		}
		text, err := readExt4(v, name)
		v.Close()
		if err != nil {
			return fmt.Errorf("read /%s on the disk %s: %w", name, layer, err)
		}
		texts = append(texts, strings.TrimSpace(string(text)))
	}
	d.say("\n/%s on the disk's ext4 file system:", name)
	d.say("  base layer  %q", texts[0])
	d.say("  flattened   %q", texts[1])
	return nil
}

func (d *demo) export() error {
	_, err := d.run("export", "--quiet", "--format", "qcow2", filepath.Base(d.top()), exportName)
	return err
}

// exportName is the exported file, in the demo's folder.
const exportName = "export.qcow2"

// check compares the export with the view, and lets qemu-img look at it.
func (d *demo) check() error {
	v, err := d.view(diskName, "qcow2")
	if err != nil {
		return err
	}
	defer v.Close()
	want, err := digest(v, v.Size())
	if err != nil {
		return err
	}
	f, err := os.Open(d.path(exportName))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	got, err := digest(f, fi.Size())
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the export's SHA-256 is %s, the view's is %s", got, want)
	}
	d.say("  %s, SHA-256 %s…, the same as the view's", cli.FormatSize(fi.Size()), got[:16])

	out, err := exec.CommandContext(d.ctx, "qemu-img", "check", "-q", d.path(exportName)).CombinedOutput()
	switch {
	case errors.Is(err, exec.ErrNotFound):
	case err != nil:
		return fmt.Errorf("qemu-img check: %w: %s", err, out)
	default:
		d.say("  qemu-img check: no errors")
	}
	return nil
}
