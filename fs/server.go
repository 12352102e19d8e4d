package fs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"flatimg/fs/mountpoint"
)

// Server serves a mount.
type Server struct {
	mountpoint string
	fuse       *fuse.Server
	catalog    *catalog
	log        *slog.Logger
	stop       context.CancelFunc
	workers    sync.WaitGroup
	unmount    func(ctx context.Context, path string, lazy bool) error
	status     func() Status
	done       chan struct{}
}

// Mount mounts the views of o on the directory dir and returns when it
// answers. An error about a source wraps [layers.ErrSource] or
// [layers.ErrRefused]; a broken image in a directory is none.
func Mount(dir string, o Options) (*Server, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c := newCatalog(o)
	c.refresh()
	if err := c.sourceError(o.Sources); err != nil {
		return nil, err
	}
	c.zeroFile = newZeroFile()

	ctx, stop := context.WithCancel(context.Background())
	s := &Server{mountpoint: dir, catalog: c, log: o.Log, stop: stop, unmount: o.Unmount, done: make(chan struct{})}
	s.status = func() Status { return c.status(dir) }
	root := &rootNode{catalog: c, control: newControl(c, s.status)}
	s.fuse, err = fuse.NewServer(gofs.NewNodeFS(root, fsOptions()), dir, mountOptions(o))
	if err != nil {
		stop()
		c.close()
		return nil, err
	}
	if m, err := mountpoint.Find(dir); err == nil && m != nil {
		s.mountpoint = m.Point // dir may be a link to it
		c.refuse(m.Device())
		raiseReadAhead(m)
	}
	s.startWorkers(ctx, root)
	go s.serve()
	if err := s.fuse.WaitMount(); err != nil {
		limit, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("the mount does not answer: %w", err), s.Unmount(limit))
	}
	return s, nil
}

// serve answers requests until the file system is unmounted.
func (s *Server) serve() {
	s.fuse.Serve()
	s.stop()
	s.workers.Wait()
	s.catalog.close()
	close(s.done)
}

// startWorkers starts scanning, and telling the kernel what has changed.
func (s *Server) startWorkers(ctx context.Context, root *rootNode) {
	dropped := make(chan outdated, 64)
	s.workers.Go(func() {
		s.catalog.run(ctx, func(old outdated) {
			select {
			case dropped <- old:
			case <-ctx.Done():
			}
		})
	})
	s.workers.Go(func() {
		for {
			select {
			case old := <-dropped:
				root.drop(old)
			case <-ctx.Done():
				return
			}
		}
	})
}

// Status returns what the mount tells about itself.
func (s *Server) Status() Status { return s.status() }

// Done is closed when the file system is unmounted and all is closed.
func (s *Server) Done() <-chan struct{} { return s.done }

// Unmount unmounts. While somebody uses the mount it is only detached, so that
// nobody new can find it, and Unmount waits for its last user until ctx is
// done. After that the end of the process gives its users errors.
func (s *Server) Unmount(ctx context.Context) error {
	err := s.unmount(ctx, s.mountpoint, false)
	if errors.Is(err, unix.EBUSY) {
		s.log.Info("the mount is in use: it is detached, and ends with its last user", "mountpoint", s.mountpoint)
		err = s.unmount(ctx, s.mountpoint, true)
	}
	if err != nil && !errors.Is(err, mountpoint.ErrNotMounted) {
		return fmt.Errorf("unmount %s: %w", s.mountpoint, err)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("unmount %s: still in use: %w", s.mountpoint, ctx.Err())
	}
}

// fsOptions has no timeouts: the nodes set them.
func fsOptions() *gofs.Options {
	return &gofs.Options{
		NullPermissions: true,
		RootStableAttr:  &gofs.StableAttr{Ino: rootIno},
	}
}

func mountOptions(o Options) *fuse.MountOptions {
	m := &fuse.MountOptions{
		AllowOther:    o.AllowOther,
		FsName:        o.FSName,
		Name:          mountpoint.Subtype,
		MaxWrite:      maxRead,
		DisableXAttrs: true,
		// Listing a directory must not open its images.
		DisableReadDirPlus:       true,
		ExplicitDataCacheControl: true,
		Logger:                   slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
		// Root needs no helper, and with one it would not see why it fails.
		DirectMountStrict: os.Geteuid() == 0,
		DirectMountFlags:  unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV,
	}
	if o.AllowOther && !slices.Contains(o.Flags, checkModes) {
		m.Options = append(m.Options, checkModes)
	}
	if !m.DirectMountStrict {
		m.Options = append(append(m.Options, o.Flags...), "ro")
		return m
	}
	// The system call takes some options as bits.
	for _, f := range o.Flags {
		if bit, ok := mountFlags[f]; ok {
			m.DirectMountFlags |= bit
		} else {
			m.Options = append(m.Options, f)
		}
	}
	return m
}

// checkModes makes the kernel check the permission bits of nodes (fuse(8)).
const checkModes = "default_permissions"

// mountFlags are mount options that are bits of mount(2).
var mountFlags = map[string]uintptr{
	"ro":      unix.MS_RDONLY,
	"noexec":  unix.MS_NOEXEC,
	"nodev":   unix.MS_NODEV,
	"nosuid":  unix.MS_NOSUID,
	"noatime": unix.MS_NOATIME,
}

// sourceError returns the error of a source that has nothing to show.
func (c *catalog) sourceError(sources []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range sources {
		if err := c.problems[s]; err != nil {
			return err
		}
	}
	return nil
}

// refuse makes images on the mount's own device errors.
func (c *catalog) refuse(dev uint64) { c.scanner.refuseDev = dev }

// close closes the images that nobody uses, which is all of them after an
// unmount that was not forced.
func (c *catalog) close() {
	c.mu.Lock()
	images := c.allImages()
	c.mu.Unlock()
	for _, image := range images {
		image.detach()
	}
	if c.zeroFile >= 0 {
		unix.Close(c.zeroFile)
	}
}
