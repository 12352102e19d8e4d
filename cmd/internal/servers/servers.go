// Package servers says what it takes to bring a file to where people keep images,
// and back: a folder or a block device of this machine, or a server. Each
// protocol has a package of its own below; package schemes knows all of them, and
// which one a URL names. What several protocols share stands in transfer, and for
// those over HTTP in web, over ssh in ssh.
//
// Open of a protocol's package parses the destination, connects, and checks what
// can be checked before any byte moves; it returns an [Upload]. Whoever has bytes
// to send calls [Upload.Send], verifies what arrived, and calls [Upload.Publish].
// OpenSource is the way back; it returns a [Download].
//
// # Nothing partial
//
// What is sent goes to a place where nobody looks for it: a file without a name
// where the file system knows such, else a hidden name ".NAME.part-XXXX" in the
// target's folder, or what the protocol has for it (a multipart upload, a blob
// that no manifest names). Publish gives it the final name at once.
//
// # Going on
//
// A protocol that can go on with what an earlier run has sent tells its [Log]
// what that takes ([Log.Keep]): a part's name, an upload's id, how much has
// arrived. Whoever calls keeps it, and gives it to the next run as
// [Options.Resume]. [Upload.Close] removes what was not published, unless it is
// told to leave it for that.
//
// Within a run, requests that failed for a reason that may pass are tried again;
// see [Options.Retries].
//
// # Abilities
//
// A protocol has the methods of Upload, and pulls the bytes from a [Source] in
// the order and size that suit it, holes left out where it can. What only some
// can do stands in interfaces of its own: [Local], [Checker], [Verifier],
// [ReadBacker], [Namer], [Sparse], [Summer]. A type without one of them lacks the
// ability.
package servers

import (
	"context"
	"encoding/json"
	"io"
	"os"
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

// FileRanges is a Source of which some ranges lie in files, from where the
// kernel can send them.
type FileRanges interface {
	// FileRanges calls f for the parts of a range, in order. The file is nil
	// for a part that does not lie in one; at is where it lies there.
	FileRanges(off, length int64, f func(file *os.File, at, length int64) error) error
}

// Upload is one file on its way to its destination. Its methods are called one
// after the other.
type Upload interface {
	// Send brings src to where nobody looks for it yet, and makes it durable
	// where the protocol has a word for that. With [Options.Resume] it goes on
	// with what an earlier run has sent, where that is still there.
	Send(ctx context.Context, src Source, log Log) error
	// Publish makes what was sent appear under its final name, whole and at
	// once. An existing file is an error unless [Options.Force] is set.
	Publish(ctx context.Context) error
	// Close ends the connection. What was not published is removed, unless keep
	// is set and a later run can go on with it; that takes a few seconds at
	// most even when the server does not answer.
	Close(keep bool) error
	// String is the destination for people, without secrets. The last element
	// of its path is the name that the file will have.
	String() string
}

// Namer is an [Upload] or a [Download] whose file has another name than the last
// element of String: a container that is called otherwise. An empty FileName is
// one that is not known.
type Namer interface {
	FileName() string
}

// Log is told how an upload goes. Its methods are safe for concurrent use.
type Log interface {
	// Sent counts n bytes of data that have left; holes are not counted. A
	// negative number takes back what has to be sent again.
	Sent(n int64)
	// Kept counts n bytes of data that an earlier run has sent, so that they
	// need not be sent again.
	Kept(n int64)
	// Keep notes what the next run needs to go on, as JSON; it replaces what
	// was noted before. The first time it has reached the disk on return:
	// call it before making something on the server that would be left over.
	Keep(state any)
	// Say tells the user something that is not an error, as a sentence without
	// capital and full stop.
	Say(format string, args ...any)
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

// File says what is about to be sent.
type File struct {
	// Format and Subformat are those of the target, as convert names them:
	// "vmdk", "streamOptimized". An empty Subformat is the default one.
	Format, Subformat string
	// Size of the file, and Data, what of it is not holes, in bytes; 0: not
	// known yet.
	Size, Data int64
	// VirtualSize is that of the guest's disk in bytes.
	VirtualSize int64
	// ReadFromEnd: readers look for a footer at the end of what they open, so
	// that the file can't be on a larger device.
	ReadFromEnd bool
}

// Checker is an Upload that knows before any byte is sent whether the server
// would refuse the file: no space, too large, a format that it does not take.
type Checker interface {
	Check(ctx context.Context, f File) error
}

// Verifier is an Upload whose server computes checksums itself.
type Verifier interface {
	// Verify compares what the server has received with what was sent, whose
	// SHA-256 is sum; nil where that is not known. It returns who has computed
	// what: "SHA-256 on the server". An error that wraps
	// [errors.ErrUnsupported]: this server doesn't after all.
	Verify(ctx context.Context, sum []byte) (by string, err error)
}

// ReadBacker is an Upload that can read what it has sent.
type ReadBacker interface {
	// ReadBack writes the bytes [off, off+length) of what was sent to w, in
	// order.
	ReadBack(ctx context.Context, w io.Writer, off, length int64) error
}

// Download is one file at a server. Its methods are safe for concurrent use.
type Download interface {
	// Size in bytes; -1: the server does not tell.
	Size() int64
	// Version tells states of the file from each other: what it was changed to
	// has another one. Empty: the server does not tell, so that nobody can go
	// on with what an earlier run has fetched.
	Version() string
	// Read writes the bytes [off, off+length) to w, in order. A length of -1
	// means to the end. It fails when the file is not of that version any more.
	// It is not tried again: what w has got has arrived.
	Read(ctx context.Context, w io.Writer, off, length int64) error
	// Lanes is how many calls of Read at a time are of use.
	Lanes() int
	// Close ends the connection.
	Close() error
	// String is the source for people, without secrets. The last element of its
	// path is the file's name.
	String() string
}

// Sparse is a Download that knows where the file has data.
type Sparse interface {
	// NextData is that of [Source].
	NextData(ctx context.Context, off int64) (start, end int64, err error)
}

// Checksum is one that a server tells.
type Checksum struct {
	// Algorithm is "sha256", "sha512" or "md5".
	Algorithm string
	Sum       []byte
	// By says who has computed it: "SHA-256 on the server".
	By string
	// Before and After are what stands around the file in what the server has
	// computed it over.
	Before, After []byte
	// PartSize in bytes is not 0 where the server has computed it over the
	// checksums of the parts of the file of that size, one after the other.
	PartSize int64
}

// IsWhole says whether the checksum is one of the file and nothing else.
func (c Checksum) IsWhole() bool { return len(c.Before) == 0 && len(c.After) == 0 && c.PartSize == 0 }

// Summer is a Download whose server knows a checksum of the file.
type Summer interface {
	// Checksum returns it. An error that wraps [errors.ErrUnsupported]: this
	// server doesn't after all.
	Checksum(ctx context.Context) (Checksum, error)
}

// Fetcher is a Download that can't be read in parts, and writes a file by itself.
type Fetcher interface {
	// Fetch writes the file to path, where an earlier run may have left a part
	// of it, and calls got with the number of bytes as they arrive.
	Fetch(ctx context.Context, path string, got func(n int64)) error
}

// Options say how a destination or a source is opened. The zero value is the
// default of each.
type Options struct {
	// Name of the file for a destination that is a folder.
	Name string
	// Force replaces an existing file, and overwrites a device.
	Force bool
	// Direct sends to the final name where the server can't rename. What fails
	// leaves a partial file there, if the server does.
	Direct bool
	// Resume is what an earlier run has kept by [Log.Keep].
	Resume json.RawMessage
	// Connections is the most connections, or requests at a time where one
	// connection takes several. Default: what suits the protocol.
	Connections int
	// Retries is how often in a row something is tried again that has failed
	// for a reason that may pass; -1: never. Default: 5.
	Retries int
	// BandwidthLimit in bytes a second for programs that send by themselves;
	// 0: none. Who reads a Source or writes what a Download reads limits itself.
	BandwidthLimit int64
	// SSH is the command line that starts ssh, for a shell. Default: "ssh".
	SSH string
	// CACert is the path of a file of PEM certificates to trust in place of the
	// system's.
	CACert string
	// User and PasswordFile, the path of a file whose first line is a password,
	// are for servers that want such. Default: what the protocol's environment
	// variables and configuration files say.
	User, PasswordFile string
	// Ask asks the user for the password of what: "ada at host"; nil: nobody
	// can be asked. It is called while the server is opened, and not later.
	Ask func(ctx context.Context, what string) (string, error)
}
