// Package servers brings a file to where people keep images: a folder of this
// machine, or a server that a URL names. Each protocol has a file of its own.
//
// [Open] parses the destination, connects, and checks what can be checked
// before any byte moves; it returns an [Upload]. Whoever has bytes to send calls
// [Upload.Send], verifies what arrived, and calls [Upload.Publish].
//
// # Nothing partial
//
// What is sent goes to a place where nobody looks for it: a file without a name
// where the file system knows such, else a hidden name ".NAME.part-XXXX" in the
// target's folder. Publish gives it the final name at once. [Upload.Close]
// removes it unless it was published. A kill -9 can leave a hidden file, never
// the final name.
//
// # Abilities
//
// A protocol has the three methods of Upload, and pulls the bytes from a
// [Source] in the order and size that suit it, holes left out where it can. What
// only some can do stands in interfaces of its own: [Local], [Summer],
// [ReadBacker]. An Upload without one of them lacks the ability.
package servers

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
)

// Source is a file to send. It is read by several goroutines at once.
type Source interface {
	io.ReaderAt
	// Size in bytes.
	Size() int64
	// NextData returns the first run of data at or after off, [start, end),
	// both Size when there is none. What it leaves out reads as zeros.
	NextData(off int64) (start, end int64, err error)
}

// Upload is one file on its way to its destination. Its methods are called one
// after the other.
type Upload interface {
	// Send copies src to where nobody looks for it yet, and makes it durable
	// where the protocol has a word for that. It calls sent with the number of
	// bytes as they leave, from several goroutines; holes are not counted.
	Send(ctx context.Context, src Source, sent func(n int64)) error
	// Publish makes what was sent appear under its final name, whole and at
	// once. An existing file is an error unless [Options.Force] is set.
	Publish(ctx context.Context) error
	// Close ends the connection. What was not published is removed, which
	// takes a few seconds at most even when the server does not answer.
	Close() error
	// String is the destination for people, without secrets.
	String() string
}

// Local is an Upload to this machine. Its caller can write the file itself, in
// place of Send: a file that is made where it is needed is not copied.
type Local interface {
	Upload
	// Dir is the folder in which the file will appear.
	Dir() string
	// Create returns the file that Publish will publish, empty. It belongs to
	// the Upload, which closes it; its caller makes it durable.
	Create() (*os.File, error)
}

// Summer is an Upload whose server can compute a checksum itself.
type Summer interface {
	// Sum returns the SHA-256 of what the server has received, and who
	// computed it. An error that wraps [errors.ErrUnsupported]: this server
	// doesn't after all.
	Sum(ctx context.Context) (sum []byte, by string, err error)
}

// ReadBacker is an Upload that can read what it has sent.
type ReadBacker interface {
	// ReadBack writes all that was sent to w, in order.
	ReadBack(ctx context.Context, w io.Writer) error
}

// Options say how a destination is opened.
type Options struct {
	// Name of the file for a destination that is a folder.
	Name string
	// Force replaces an existing file.
	Force bool
	// SSH is the command line that starts ssh, for a shell. Default: "ssh".
	SSH string
}

// scheme opens destinations of one kind.
type scheme struct {
	name string
	open func(ctx context.Context, dest string, o Options) (Upload, error)
}

var schemes = []scheme{{"sftp", openSFTP}}

// Open opens the destination dest, a path or a URL. It fails when the server
// can't be reached, when the folder is missing, and when the target exists.
func Open(ctx context.Context, dest string, o Options) (Upload, error) {
	name, ok := schemeOf(dest)
	if !ok {
		return openFile(dest, o)
	}
	for _, s := range schemes {
		if s.name == name {
			return s.open(ctx, dest, o)
		}
	}
	return nil, usage(fmt.Errorf("%s: no way to send to %s:// destinations", dest, name), "DEST is a path or one of: %s; a path with :// in it starts with ./", supported())
}

// IsURL says whether dest names a server and not a path.
func IsURL(dest string) bool {
	_, ok := schemeOf(dest)
	return ok
}

// schemeOf returns the scheme of a URL. A path that has "://" in it is one when
// it starts with a slash or a dot.
func schemeOf(dest string) (string, bool) {
	name, _, ok := strings.Cut(dest, "://")
	if !ok || name == "" || strings.ContainsAny(name, "/.") {
		return "", false
	}
	return strings.ToLower(name), true
}

func supported() string {
	names := make([]string, len(schemes))
	for i, s := range schemes {
		names[i] = s.name + "://"
	}
	return strings.Join(names, ", ")
}
