package mounting

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"flatimg/cmd/internal/cli"
	"flatimg/cmd/internal/daemon"
	"flatimg/fs"
	"flatimg/layers"
)

// endWithin is how long readers have after a signal to come to an end. After
// that the process ends and they get errors.
const endWithin = 3 * time.Second

// Options of [Mount].
type Options struct {
	fs.Options
	// Mountpoint is the folder to mount on.
	Mountpoint string
	// Foreground serves in this process until it is unmounted.
	Foreground bool
	// LogFile gets the log. Empty: standard error in the foreground, syslog
	// in the background.
	LogFile string
	// Verbose logs more than what needs attention.
	Verbose bool
	// Sandbox takes from the server, once it has mounted, all rights that it
	// does not need.
	Sandbox bool
}

// Mount mounts, and serves in the background unless told otherwise. When ctx
// is done, which is by a signal, the server unmounts.
func Mount(ctx context.Context, o Options) error {
	if o.Foreground {
		return serve(ctx, o, func(*os.File) error { return nil })
	}
	child := daemon.Inherited()
	if child == nil {
		return daemon.Start(ctx)
	}
	ready := false
	err := serve(ctx, o, func(log *os.File) error {
		ready = true
		return child.Ready(log)
	})
	if err != nil && !ready {
		// The process in the foreground prints it.
		if child.Fail(err) == nil {
			os.Exit(cli.ExitCode(err))
		}
	}
	return err
}

// serve mounts, calls ready, and serves until it is unmounted.
func serve(ctx context.Context, o Options, ready func(log *os.File) error) error {
	if err := checkFUSE(); err != nil {
		return err
	}
	if err := checkMountpoint(o.Mountpoint, o.Sources); err != nil {
		return err
	}
	log, err := openLog(o)
	if err != nil {
		return err
	}
	o.Log = log.Logger
	dump := make(chan os.Signal, 1)
	signal.Notify(dump, unix.SIGUSR1) // early, as it kills who does not listen
	defer signal.Stop(dump)
	if o.Sandbox {
		u, err := startUnmounter(o.Mountpoint)
		if err != nil {
			return err
		}
		o.Unmount = u.unmount
	}
	server, err := fs.Mount(o.Mountpoint, o.Options)
	if err != nil {
		return mountError(o.Mountpoint, err)
	}
	if o.Sandbox {
		if err := enterSandbox(o); err != nil {
			return errors.Join(err, end(server, o.Mountpoint, log))
		}
	}
	log.Info("mounted", "mountpoint", o.Mountpoint, "pid", os.Getpid())
	if err := ready(log.file); err != nil {
		log.Warn("the starting process may not know that the mount is ready", "err", err)
	}
	for {
		select {
		case <-dump:
			log.dump(server.Status())
			continue
		case <-server.Done():
		case <-ctx.Done():
			err = end(server, o.Mountpoint, log)
		}
		if err == nil {
			log.Info("unmounted", "mountpoint", o.Mountpoint)
		}
		return err
	}
}

// end unmounts after a signal.
func end(server *fs.Server, mountpoint string, log *serverLog) error {
	limit, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	err := server.Unmount(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		log.Warn("ended with readers", "err", err)
		return nil
	}
	if err != nil {
		return &cli.Error{Err: err, Hint: "flatimg unmount --lazy " + mountpoint, Code: cli.ExitMount}
	}
	return nil
}

// checkFUSE says what is missing on this machine.
func checkFUSE() error {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return &cli.Error{
			Err:  fmt.Errorf("no FUSE: %w", err),
			Hint: "load it by: modprobe fuse; a container needs --device /dev/fuse",
			Code: cli.ExitMount,
		}
	}
	if os.Geteuid() == 0 {
		return nil
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		return &cli.Error{
			Err:  errors.New("mounting as a user needs fusermount3, which is not installed"),
			Hint: "install the package fuse3, or mount as root",
			Code: cli.ExitMount,
		}
	}
	return nil
}

// checkMountpoint refuses a mount point that can't be one.
func checkMountpoint(path string, sources []string) error {
	if err := checkMounted(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &cli.Error{Err: fmt.Errorf("the mount point %s does not exist", path), Hint: "make it: mkdir -p " + path, Code: cli.ExitMount}
	case err != nil:
		return &cli.Error{Err: fmt.Errorf("mount point: %w", err), Code: cli.ExitMount}
	case !info.IsDir():
		return &cli.Error{Err: fmt.Errorf("the mount point %s is not a folder", path), Hint: "give the mount point last", Code: cli.ExitMount}
	}
	for _, s := range sources {
		if source, err := os.Stat(s); err == nil && os.SameFile(source, info) {
			return &cli.Error{
				Err:  fmt.Errorf("%s can't be both source and mount point: the mount would hide its images", s),
				Hint: "mount on another folder",
				Code: cli.ExitUsage,
			}
		}
	}
	return nil
}

// mountError adds to an error of fs.Mount what may help.
func mountError(path string, err error) error {
	if errors.Is(err, layers.ErrSource) || errors.Is(err, layers.ErrRefused) {
		return err
	}
	e := &cli.Error{Err: fmt.Errorf("mount on %s: %w", path, err), Code: cli.ExitMount}
	switch {
	case os.Geteuid() != 0:
		e.Hint = "fusermount3 says why above; " + path + " must be a folder of yours, and --allow-other needs user_allow_other in /etc/fuse.conf"
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.Hint = "a container needs --device /dev/fuse --cap-add SYS_ADMIN"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		e.Hint = "load FUSE by: modprobe fuse"
	}
	return e
}
